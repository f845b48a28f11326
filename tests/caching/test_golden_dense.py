"""Golden files of the caching policies on the dense model: the same tokens and passes as the authors' code."""

import json
from pathlib import Path

import pytest
from common import EOS
from dense import decode
from golden_cases import cases
from quirks import query_tokens
from settings import SCORE, settings

FILES = [
    "tiny-llada.fastdllm",
    "tiny-llada.d2cache",
    "tiny-llada.dkv_decode",
    "tiny-llada.dkv_greedy",
    "tiny-llada.entropy",
    "tiny-dream.d2cache",
    "tiny-dream.dream_dkv",
    "tiny-dream.entropy",
    "tiny-llada.d3llm",
    "tiny-dream.d3llm",
]
SHARE = 1 / 6  # of the cases of each file and policy: the engine runs more (tests/engine/test_golden.py)
HERE = ("prefix", "dual", "dkv-decode", "dkv-greedy", "dkv-prefill", "dkv-pd", "entropy", "d3")


def difference(case: dict, keys: dict) -> str | None:
    """The first thing in which our decoding of the case differs, or None."""
    stops = case.get("early_stop", False)
    ends = frozenset([EOS] if stops else [])
    decoding = decode(case["model"], case["prompt_ids"], case["gen_length"], keys, stop_at_eos=stops, end_ids=ends)
    trace = {key: [getattr(p, key) for p in decoding.record] for key in ("query_tokens", "full", "unmasked")}
    want = case | {"query_tokens": query_tokens(case, trace["unmasked"])}
    if "unmasked" in want:
        want["unmasked"] = [sorted(part) for part in want["unmasked"]]
    got = trace | {"output_ids": decoding.canvas.response.tolist()}
    wrong = [f"{key} {got[key]} instead of {want[key]}" for key in got if key in want and got[key] != want[key]]
    return "; ".join(wrong) or None


@pytest.mark.parametrize("file", FILES)
def test_golden(file, sampling):
    ours = [case for case in cases(file.split(".")[0]) if case.file == file and case.settings["dllm_cache"] in HERE]
    some = sampling.take(ours, lambda case: case.settings["dllm_cache"], SHARE, least=2)
    found = [(case.index, difference(case.case, case.settings)) for case in some]
    assert found
    sampling.check([f"case {index}: {text}" if text else None for index, text in found])


def test_several_tokens_a_step():
    """Fixed steps that unmask several tokens each, where the order of nearly equal confidences counts.

    The golden files have one token a step. Cases written by NVlabs/Fast-dLLM's and horseee/dKV-Cache's own code
    in float32 on the CPU; those codes rank by a softmax in float64, and two of the cases hang on it. ML-GSAI/LLaDA's
    code, which `none` follows, ranks in float32, and so differs from Fast-dLLM's without a cache in one of 200 cases.
    """
    for case in json.loads((Path(__file__).parent / "several_a_step.json").read_text()):
        assert difference(case, settings(case)) is None


def test_dkv_for_dream_with_other_settings(sampling):
    """What the golden files leave out: `cache_type=pd`, and `shift_type=un_right` with both types.

    Cases written by horseee/dKV-Cache's own code in float32 on the CPU.
    """
    written = json.loads((Path(__file__).parent / "dream_dkv.json").read_text())
    found = []
    for case in sampling.take(written, lambda case: (case["cache_type"], case["shift"]), share=1 / 2):
        keys = {
            "dllm_cache": {"decoded": "dkv-decode", "pd": "dkv-pd"}[case["cache_type"]],
            "dllm_refresh_interval": case["cache_steps"],
            "dllm_shift": case["shift"],
            "dllm_steps": case["steps"],
            "dllm_block_length": case["gen_length"],
            "dllm_score": SCORE[case["alg"]],
        }
        if case["cache_type"] == "pd":
            keys["dllm_prompt_interval"] = 0
        found.append(difference(case | {"source": "dream_dkv"}, keys))
    sampling.check(found)
