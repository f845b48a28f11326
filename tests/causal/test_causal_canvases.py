"""Given text where attention is causal by blocks, and what such a model's canvas cannot have."""

import random

import pytest
from block_causal_loops import sdar as loop
from causal_cases import as_prompts, asked, prompts
from common import EOS, MASK
from settings import template

from vllm_dllm.validation import Refusal

CASES = 14


def forms(seed: int) -> list[tuple[list[int], list[int], dict]]:
    """(prompt, response with masks, settings): holes of all lengths between given text, whole blocks of it among them."""
    rng, found = random.Random(seed), []
    for ids in prompts(CASES, seed):
        response: list[int] = []
        while len(response) < 40 or MASK not in response:
            size = rng.choice((1, 2, 3, 5, 9, 21))
            response += [MASK] * size if rng.random() < 0.5 else [rng.randrange(8, 100) for _ in range(size)]
        block = rng.choice((4, 4, 8, 16))
        own = {"dllm_block_length": block, "dllm_denoising_steps": rng.choice((block, block // 2, 1))}
        found.append((ids, response, own | ({"dllm_dynamic_threshold": 0.5} if rng.random() < 0.5 else {})))
    return found


def test_given_text_is_seen_when_its_block_is_reached(sdar, plain_sdar):
    """As a plain model has it, each alone and all at once, with and without a cache; a given block costs its keys."""
    cases = forms(5)
    ids = as_prompts([prompt for prompt, _, _ in cases])
    params = [asked(None, dllm_template=template(response), **own) for _, response, own in cases]
    together = sdar.run(ids, params)
    alone = [sdar.run([ids[i]], [params[i]])[0] for i in (0, 5)]
    whole = 0
    for case, (output, trace) in zip([*cases, cases[0], cases[5]], [*together, *alone], strict=True):
        prompt, response, own = case
        block, given = own["dllm_block_length"], {i: t for i, t in enumerate(response) if t != MASK}
        want = loop(
            plain_sdar,
            prompt,
            len(response),
            block,
            own["dllm_denoising_steps"],
            own.get("dllm_dynamic_threshold"),
            given=given,
        )
        assert list(output.outputs[0].token_ids) == want.response[: len(response)]
        assert [sorted(part) for part in trace["unmasked"] if part] == want.unmasked
        # given blocks are computed with what is committed before them, in as many positions as one by one
        assert sum(trace["query_tokens"]) == sum(want.query_tokens)
        whole += len(trace["query_tokens"]) < len(want.query_tokens)
        assert EOS not in want.response[: max(given, default=0)]
    assert whole, "no case with a given block behind another"
    uncached = sdar.run(
        ids[:6], [asked(None, dllm_template=template(r), dllm_cache="none", **o) for _, r, o in cases[:6]]
    )
    for (output, _), (other, _) in zip(uncached, together, strict=False):
        assert output.outputs[0].token_ids == other.outputs[0].token_ids


NOT_SEEN = "with a model whose attention is causal by blocks: it must be left out, because"


@pytest.mark.parametrize(
    "own, words",
    [
        ({"dllm_suffix": " 19"}, f"dllm_suffix=' 19' is not allowed {NOT_SEEN} no position sees what stands behind its block"),
        ({"dllm_horizon": 0}, f"dllm_horizon=0 is not allowed {NOT_SEEN} it is for a model in which every position sees all"),
        ({"dllm_window_length": 8}, f"dllm_window_length=8 is not allowed {NOT_SEEN}"),
        ({"dllm_block_add_threshold": 0.1}, f"dllm_block_add_threshold=0.1 is not allowed {NOT_SEEN}"),
        ({"dllm_cfg_scale": 1.0}, f"dllm_cfg_scale=1.0 is not allowed {NOT_SEEN}"),
        ({"dllm_scores": [0.5] * 200}, f"is not allowed {NOT_SEEN}"),
        ({"dllm_early_stop": True}, f"dllm_early_stop=True is not allowed {NOT_SEEN}"),
        ({"dllm_steps": 8}, "dllm_steps=8 is not allowed with a model whose blocks are counted from the prompt's start"),
        ({"dllm_cache": "dual"}, "dllm_cache='dual' is not allowed with a model whose attention is causal by blocks: it must "
         "be one of none, block"),
        ({"dllm_denoising_steps": 5}, "dllm_denoising_steps=5 is not allowed: it must be at most 4"),
        ({"dllm_block_length": 100, "max_tokens": 497}, "max_tokens=497 is not allowed: with the prompt's 4 tokens the canvas "
         "has 501, and it must be at most 500 (max_model_len in blocks of 100)"),
    ],
    ids=lambda v: str(v)[:40],
)  # fmt: skip
def test_what_its_canvas_cannot_have_is_refused(sdar, own, words):
    with pytest.raises(Refusal) as refused:
        sdar.generate(as_prompts([[2, 3, 75, 4]]), asked(own.pop("max_tokens", 16), **own))
    assert words in str(refused.value)
    sdar.check_idle()


def test_an_empty_suffix_is_none(sdar):
    outputs = sdar.generate(as_prompts([[2, 3, 75, 4]] * 2), [asked(8), asked(8, dllm_suffix="")])
    assert outputs[0].outputs[0].token_ids == outputs[1].outputs[0].token_ids


def test_a_canvas_of_whole_blocks_may_be_as_long_as_the_model(sdar):
    """A response without a length takes the room that whole blocks have."""
    outputs = sdar.generate(
        as_prompts([list(range(8, 98)) * 5] * 2),
        [asked(None, dllm_block_length=100), asked(None, dllm_block_length=64)],
    )
    assert [len(output.outputs[0].token_ids) for output in outputs] == [50, 62]
