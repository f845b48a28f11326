"""Canvases that are more than a prompt and masks behind it: given text, a suffix, an end that moves.

The golden files (`canvases/`) come from dense re-statements. No setting makes such canvases yet: here they are made by
hand.
"""

import json
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
from common import EOS, MASK
from dense import TRAITS, new_decoding, run

from vllm_dllm.caching import PageLedger
from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.canvas import Canvas
from vllm_dllm.decoding import Decoding
from vllm_dllm.frontier import Blocks

MODELS = ("tiny-llada", "tiny-dream")
HERE = [p.name for p in POLICIES.values() if p.probe_class is None and not p.example]  # the dense model can serve them


def golden(model: str, source: str) -> list[dict]:
    return json.loads((Path(__file__).parent / "canvases" / f"{model}.{source}.json").read_text())


class Growing(Blocks):
    """The canvas exists up to `horizon` positions behind the active block."""

    def __init__(self, block_length: int, horizon: int):
        super().__init__(block_length)
        self.horizon = horizon

    def advance(self, canvas):
        super().advance(canvas)
        canvas.grow(max(canvas.end, min(self.stop + self.horizon, canvas.length)))


def put(decoding: Decoding, canvas: Canvas) -> None:
    decoding.canvas = canvas
    decoding.pages = PageLedger(canvas.length, 8, canvas.end, decoding.policy.reasons)


def settings(case: dict) -> dict:
    keys = {
        "dllm_cache": case.get("cache", "none"),
        "dllm_block_length": case["block_length"],
        "dllm_threshold": case["threshold"],
    }
    return keys | ({"dllm_tau": case["tau"], "dllm_recent_k": case["k"]} if keys["dllm_cache"] == "entropy" else {})


def infill(case: dict, keys: dict) -> Decoding:
    """The case decoded: no end token in front of given text."""
    prompt, response = case["prompt_ids"], case["response_ids"]
    decoding = new_decoding(case["model"], prompt, len(response), keys)
    given = {len(prompt) + i: token for i, token in enumerate(response) if token != MASK}
    blocks = Blocks(case["block_length"])
    canvas = Canvas(prompt, len(response), MASK, blocks, given=given, suffix_ids=case.get("suffix_ids", ()))
    last_given = max((p for p in range(len(prompt), canvas.length) if canvas.given[p]), default=-1)

    def bar(logits, reads):
        logits[reads < last_given, EOS] = -np.inf

    put(decoding, canvas)
    run(case["model"], decoding, bar=bar)
    return decoding


@pytest.mark.parametrize("model", MODELS)
def test_given_text(model):
    for i, case in enumerate(golden(model, "infill")):
        decoding = infill(case, settings(case))
        assert decoding.canvas.response.tolist() == case["output_ids"], i
        assert [p.unmasked for p in decoding.record] == [sorted(part) for part in case["unmasked"]], i


def growing(case: dict, keys: dict) -> Decoding:
    prompt, gen_length = case["prompt_ids"], case["gen_length"]
    decoding = new_decoding(case["model"], prompt, gen_length, keys)
    put(decoding, Canvas(prompt, gen_length, MASK, Growing(case["block_length"], case["horizon"]), end=len(prompt)))
    run(case["model"], decoding, stop_at_eos=case["stop"])
    return decoding


@pytest.mark.parametrize("model", MODELS)
def test_a_growing_canvas(model, sampling):
    cases = list(enumerate(golden(model, "horizon")))
    kind = itemgetter("cache", "horizon")
    for i, case in sampling.take(cases, lambda numbered: kind(numbered[1]), share=1 / 4):
        decoding = growing(case, settings(case))
        assert [p.query_tokens for p in decoding.record] == case["query_tokens"], i
        assert [p.unmasked for p in decoding.record] == [sorted(part) for part in case["unmasked"]], i
        assert decoding.canvas.response.tolist() == case["output_ids"], i


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("model", MODELS)
def test_every_policy_goes_with_every_canvas(model, name):
    """Nothing is computed or attended to that does not exist, nothing given changes, all else is unmasked."""
    for case in golden(model, "horizon")[:3]:
        canvas = growing(case | {"stop": False}, settings(case | {"cache": "none"}) | {"dllm_cache": name}).canvas
        assert canvas.done and canvas.end == canvas.length
    for case in golden(model, "infill")[:3]:
        decoding = infill(case, settings(case) | {"dllm_cache": name})
        want = [t if t != MASK else None for t in case["response_ids"]]
        got = decoding.canvas.response.tolist()
        assert all(g == w for g, w in zip(got, want, strict=True) if w is not None) and MASK not in got
        assert TRAITS[model].mask_id == MASK and decoding.canvas.final == len(want)
