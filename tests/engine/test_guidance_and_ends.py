"""Guidance and end-token settings in a real engine: under every policy, in one batch with others; nothing is left behind."""

import random
from itertools import cycle

import pytest
from common import EOS, MASK
from dense import decode
from drive import Drive
from golden_cases import cases, differences
from prompts import DREAMS, POLICIES, as_prompt, head, params, task_prompts, token_ids
from vllm.exceptions import VLLMValidationError

PROMPT = head("count 3 by 4 x6")


def test_the_public_code_s_answers_alone(llada, sampling):
    some = sampling.take([c for c in cases("tiny-llada") if "guidance" in c.file], lambda c: str(c.settings), least=1)
    sampling.check([difference for case in some[:3] for difference in differences(llada, [case])])


@pytest.mark.parametrize("name, policies", [("llada", list(POLICIES)), ("dream", DREAMS)])
def test_guided_under_every_policy(name, policies, request):
    """As on the dense model, where that has the policy; in one batch with requests that are not guided."""
    engine = request.getfixturevalue(name)
    kinds = [POLICIES[p] | {"dllm_cache": p, "dllm_cfg_scale": scale} for p, scale in zip(policies, cycle((0.5, 2.0)))]
    kinds = [kind | {"dllm_block_length": 16} if kind["dllm_cache"] != "elastic" else kind for kind in kinds]
    asked = [params(48, ignore_eos=True, seed=1, **kind) for kind in kinds]
    others = [params(48, seed=1, dllm_cache=p, **POLICIES[p]) for p in policies]
    mixed = [each for pair in zip(asked, others, strict=True) for each in pair]
    results = engine.run([as_prompt(PROMPT)] * len(mixed), mixed)
    for kind, (output, trace) in zip(kinds, results[::2], strict=True):
        ids = token_ids(output)
        assert MASK not in ids and len(ids) == 48 and trace["query_tokens"][0] == 2 * (len(PROMPT) + 48)
        if kind["dllm_cache"] not in ("elastic", "d2"):
            want = decode(f"tiny-{name}", PROMPT, 48, kind, seed=1)
            assert ids == want.canvas.response.tolist(), kind
            assert trace["query_tokens"] == [r.query_tokens for r in want.record], kind
    plain = [token_ids(o) for o in engine.generate([as_prompt(PROMPT)] * len(others), others)]
    assert [token_ids(o) for o, _ in results[1::2]] == plain


def test_deferred_and_suppressed_ends(llada):
    names = [p for p in POLICIES if p != "dkv-greedy"]
    deferred = [params(96, dllm_cache=p, dllm_defer_eos=True) for p in names]
    suppressed = [params(48, dllm_cache=p, dllm_suppress_eos=True, **POLICIES[p]) for p in POLICIES]
    results = llada.run([as_prompt(PROMPT)] * len(deferred + suppressed), deferred + suppressed)
    for output, trace in results[: len(names)]:
        assert len(trace["unmasked"]) > 3 and output.outputs[0].finish_reason == "stop"
        tokens = [[trace["output_ids"][i] for i in part] for part in trace["unmasked"]]
        if trace["cache"] not in ("elastic", "d2"):
            assert not any(EOS in part and set(part) != {EOS} for part in tokens)
    for output, _ in results[len(names) :]:
        assert EOS not in token_ids(output) and len(token_ids(output)) == 48


@pytest.mark.parametrize("name, policies", [("llada", list(POLICIES)), ("dream", DREAMS)])
def test_what_lies_behind_an_end_is_no_candidate(name, policies, request):
    """In any block: only positions in front of an unmasked EOS are unmasked from then on, and nothing waits for others."""
    engine, kinds = request.getfixturevalue(name), []
    for policy in policies:
        drops = {} if policy == "elastic" else {"dllm_drop_behind_end": True, "dllm_block_length": 48}
        kinds.append({"dllm_cache": policy, "dllm_tokens_per_step": 4} | POLICIES[policy] | drops)
    kinds.append({"dllm_cache": "prefix", "dllm_refresh_interval": 3, "dllm_steps": 24, "dllm_drop_behind_end": True})
    results = engine.run([as_prompt(PROMPT)] * len(kinds), [params(96, seed=1, **kind) for kind in kinds])
    dropped = 0
    for kind, (output, trace) in zip(kinds, results, strict=True):
        ids, known = trace["output_ids"], 96
        for part in trace["unmasked"]:
            assert max(part, default=0) < known, kind
            ends = [i for i in part if ids[i] == EOS]
            known = min([known, *(ends if trace["cache"] != "elastic" or known == 96 or name == "llada" else [])])
        assert output.outputs[0].finish_reason == "stop" and MASK not in ids[:known], kind
        dropped += MASK in ids[known:]
        if trace["cache"] not in ("elastic", "d2"):
            want = decode(f"tiny-{name}", PROMPT, 96, kind, stop_at_eos=True, seed=1, end_ids=frozenset([EOS]))
            assert ids == want.canvas.response.tolist(), kind
            assert trace["query_tokens"] == [r.query_tokens for r in want.record], kind
    assert dropped > len(kinds) / 2


def test_guided_requests_come_and_go_in_a_small_engine(small):
    """Sixteen pages: a guided canvas takes four to eight of them; some are aborted."""
    rng = random.Random(4)
    drive = Drive(small)
    for i, prompt in enumerate(task_prompts(24, seed=9)):
        kind = {"dllm_cfg_scale": 1.0} if i % 3 else {}
        drive.add(f"g-{i}", prompt, dict(max_tokens=48, dllm_cache=rng.choice(["none", "dual", "entropy"]), **kind))
    gone = [f"g-{i}" for i in range(0, 24, 5)]
    for name in gone:
        for _ in range(3):
            drive.step()
        drive.core.abort_request([name])
        small.check_integrity()
    drive.run_out()
    assert len(drive.finished) >= 24 - len(gone)


def test_what_can_never_fit_is_refused(small):
    """A step's 256 positions; and sixteen pages, where the whole step would do."""
    with pytest.raises(
        VLLMValidationError, match=r"dllm_cfg_scale=1.0 is not allowed with a canvas of \d+ positions.*256"
    ):
        small.generate([as_prompt(PROMPT)], params(128, dllm_cfg_scale=1.0))
    with pytest.raises(VLLMValidationError, match="from 0 to 1000"):
        small.generate([as_prompt(PROMPT)], params(48, dllm_cfg_scale=-1.0))
    with pytest.raises(VLLMValidationError, match="dllm_defer_eos=True is not read by dllm_cache=dkv-greedy"):
        small.generate(
            [as_prompt(PROMPT)], params(48, dllm_cache="dkv-greedy", dllm_score="random", dllm_defer_eos=True)
        )
    with pytest.raises(VLLMValidationError, match="dllm_suppress_eos bar every token"):
        small.generate([as_prompt(PROMPT)], params(48, allowed_token_ids=[EOS], dllm_suppress_eos=True))
    small.check_idle()
