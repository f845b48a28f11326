"""Guidance and end-token settings on the dense model: LLaDA's own `generate()`, and every policy that goes without probe."""

import numpy as np
import pytest
from common import EOS, MASK, golden
from dense import decode, new_decoding
from settings import settings

CASES = golden("tiny-llada", "guidance")  # written by ML-GSAI/LLaDA's generate.py, in float32 on the CPU
POLICIES = ["prefix", "dual", "dkv-decode", "dkv-prefill", "dkv-pd", "entropy", "d3"]


def test_guidance_and_suppressed_ends_are_llada_s(sampling):
    some = sampling.take(CASES, lambda case: (case.get("cfg_scale"), case.get("logits_eos_inf")), share=1 / 2)
    wrong = []
    for case in some:
        found = decode("tiny-llada", case["prompt_ids"], case["gen_length"], settings(case)).canvas.response.tolist()
        wrong.append(None if found == case["output_ids"] else f"{case['prompt']}: {found}")
    sampling.check(wrong)


@pytest.mark.parametrize("name", ["tiny-llada", "tiny-dream"])
@pytest.mark.parametrize("policy", POLICIES)
def test_both_canvases_are_computed_as_the_policy_says(name, policy):
    """Pass by pass the second canvas's share is what the request computes without it: these policies go by positions, and
    by what is unmasked, which is the same in both."""
    case = CASES[2]
    keys = {"dllm_cache": policy, "dllm_tokens_per_step": 2, "dllm_block_length": 16, "dllm_cfg_scale": 1.0}
    guided = decode(name, case["prompt_ids"], 32, keys)
    assert guided.canvas.done and MASK not in guided.canvas.response
    halves = [record.query_tokens / 2 for record in guided.record]
    if policy in ("entropy", "d3"):  # what is computed hangs on entropies, or order, which are others with guidance
        assert all(half == int(half) for half in halves)
    else:
        alone = decode(name, case["prompt_ids"], 32, keys | {"dllm_cfg_scale": 0.0})
        assert halves == [record.query_tokens for record in alone.record]
    assert guided.pages.marks == guided.second.pages.marks


def test_a_scale_of_nothing_is_no_guidance():
    decoding = new_decoding("tiny-llada", [5, 6], 8, {"dllm_cfg_scale": 0.0})
    assert decoding.second is None and decoding.plan().second is None


def test_a_second_canvas_has_all_but_the_prompt():
    decoding = new_decoding("tiny-llada", [5, 6, 7], 4, {"dllm_cfg_scale": 0.5, "dllm_tokens_per_step": 1})
    planned = decoding.plan()
    assert planned.token_ids.tolist() == [5, 6, 7] + [MASK] * 4
    assert planned.second.token_ids.tolist() == [MASK] * 7
    assert planned.tokens == planned.most_tokens == 14 and planned.second.scale == 0.5


@pytest.mark.parametrize(
    "keys", [{"dllm_threshold": 0.9}, {"dllm_tokens_per_step": 1, "dllm_score": "entropy"}], ids=str
)
@pytest.mark.parametrize("name", ["tiny-llada", "tiny-dream"])
def test_deferred_ends_come_last_in_their_block(name, keys):
    """While a block has a candidate with another token, no end token is fixed."""
    case = CASES[5]
    keys = keys | {"dllm_block_length": 32}

    def passes(deferred: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        found = decode(name, case["prompt_ids"], 64, keys | {"dllm_defer_eos": deferred})
        response = found.canvas.response
        return [(np.asarray(r.unmasked), response[r.unmasked]) for r in found.record if r.unmasked]

    mixed = sum((tokens == EOS).any() and (tokens != EOS).any() for _, tokens in passes(True))
    assert mixed == 0
    for block in (0, 32):
        order = [t for at, tokens in passes(True) for p, t in zip(at, tokens, strict=True) if block <= p < block + 32]
        ends = np.flatnonzero(np.asarray(order) == EOS)
        behind = order[ends[0] :] if len(ends) else []
        others = sum(t != EOS for t in behind)
        assert others <= 2, "a token may become another one once end tokens stand beside it"
    assert any((tokens == EOS).any() and (tokens != EOS).any() for _, tokens in passes(False)) or len(keys) > 2
