"""Golden files of the caching policies on the dense model: the same tokens and passes as the authors' code."""

import json
from pathlib import Path

import pytest
from common import golden
from dense import decode
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
]
PART = 3  # every third case: the engine runs them all (tests/engine/test_golden.py)
HERE = ("prefix", "dual", "dkv-decode", "dkv-greedy", "dkv-prefill", "dkv-pd", "entropy")


def difference(case: dict, keys: dict) -> str | None:
    """The first thing in which our decoding of the case differs, or None."""
    decoding = decode(case["model"], case["prompt_ids"], case["gen_length"], keys)
    trace = {key: [getattr(p, key) for p in decoding.record] for key in ("query_tokens", "full", "unmasked")}
    want = case | {"query_tokens": query_tokens(case, trace["unmasked"])}
    if "unmasked" in want:
        want["unmasked"] = [sorted(part) for part in want["unmasked"]]
    got = trace | {"output_ids": decoding.canvas.response.tolist()}
    wrong = [f"{key} {got[key]} instead of {want[key]}" for key in got if key in want and got[key] != want[key]]
    return "; ".join(wrong) or None


@pytest.mark.parametrize("file", FILES)
def test_golden(file):
    cases = [(i, c, settings(c)) for i, c in enumerate(golden(*file.split(".")))]
    cases = [c for c in cases if c[2]["dllm_cache"] in HERE][::PART]
    found = {i: difference(case, keys) for i, case, keys in cases}
    wrong = {i: text for i, text in found.items() if text}
    assert cases and not wrong, f"{len(wrong)} of {len(cases)} cases differ: {wrong}"


def test_several_tokens_a_step():
    """Fixed steps that unmask several tokens each, where the order of nearly equal confidences counts.

    The golden files have one token a step. Cases written by NVlabs/Fast-dLLM's and horseee/dKV-Cache's own code
    in float32 on the CPU; those codes rank by a softmax in float64, and two of the cases hang on it. ML-GSAI/LLaDA's
    code, which `none` follows, ranks in float32, and so differs from Fast-dLLM's without a cache in one of 200 cases.
    """
    for case in json.loads((Path(__file__).parent / "several_a_step.json").read_text()):
        assert difference(case, settings(case)) is None


def test_dkv_for_dream_with_other_settings():
    """What the golden files leave out: `cache_type=pd`, and `shift_type=un_right` with both types.

    Cases written by horseee/dKV-Cache's own code in float32 on the CPU.
    """
    cases = json.loads((Path(__file__).parent / "dream_dkv.json").read_text())
    for case in cases:
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
        assert difference(case | {"source": "dream_dkv"}, keys) is None
