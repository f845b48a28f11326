"""Canvases that are more than a prompt and masks behind it, over a dense model: given text, a suffix, a horizon.

The golden files come from dense re-statements; tests/engine runs them in the real engine.
"""

from operator import itemgetter

import pytest
from common import EOS, MASK, golden
from dense import TRAITS, new_decoding, run
from settings import canvas_settings

from vllm_dllm.caching.registry import FULL
from vllm_dllm.constraints.ends import NoEndBeforeGiven
from vllm_dllm.decoding import Decoding
from vllm_dllm.given_text import given_text

MODELS = ("tiny-llada", "tiny-dream")
HERE = [p.name for p in FULL.values() if p.probe_class is None and not p.example]  # the dense model can serve them


def decode(case: dict, **other) -> Decoding:
    """The case decoded, `other` settings in place of its own."""
    keys = canvas_settings(case) | other
    text = given_text(keys)
    for key in ("dllm_template", "dllm_suffix"):
        keys.pop(key, None)
    gen_length = case.get("gen_length", text.length)
    constraints = [NoEndBeforeGiven([EOS])] if text else []
    decoding = new_decoding(case["model"], case["prompt_ids"], gen_length, keys, text, constraints)
    run(case["model"], decoding, stop_at_eos=case.get("stop", False))
    return decoding


@pytest.mark.parametrize("model", MODELS)
def test_given_text(model):
    for i, case in enumerate(golden(model, "infill")):
        decoding = decode(case)
        assert decoding.canvas.response.tolist() == case["output_ids"], i
        assert [p.unmasked for p in decoding.record] == [sorted(part) for part in case["unmasked"]], i


@pytest.mark.parametrize("model", MODELS)
def test_a_growing_canvas(model, sampling):
    cases = list(enumerate(golden(model, "horizon")))
    kind = itemgetter("cache", "horizon")
    for i, case in sampling.take(cases, lambda numbered: kind(numbered[1]), share=1 / 4):
        decoding = decode(case)
        assert [p.query_tokens for p in decoding.record] == case["query_tokens"], i
        assert [p.unmasked for p in decoding.record] == [sorted(part) for part in case["unmasked"]], i
        assert decoding.canvas.response.tolist() == case["output_ids"], i


def without_taus(case: dict) -> dict:
    return case | {"cache": "none"}


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("model", MODELS)
def test_every_policy_goes_with_every_canvas(model, name):
    """Nothing is computed or attended to that does not exist, nothing given changes, all else is unmasked."""
    assert TRAITS[model].mask_id == MASK
    for case in golden(model, "horizon")[:3]:
        canvas = decode(without_taus(case), dllm_cache=name).canvas
        assert canvas.done and canvas.end == canvas.length
    for case in golden(model, "infill")[:3]:
        for horizon in ({}, {"dllm_horizon": 2}):
            canvas = decode(case, dllm_cache=name, **horizon).canvas
            got = canvas.response.tolist()
            assert all(w in (MASK, g) for g, w in zip(got, case["response_ids"], strict=True)) and MASK not in got
            assert canvas.final == len(got)
