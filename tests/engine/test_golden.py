"""Golden files: the same tokens and the same passes as the authors' code, alone and 16 requests at once."""

import random

import pytest
from golden_cases import cases, check, differences, sample

ALONE = 0.25  # the part of the cases that also runs alone

MODELS = [("llada", "tiny-llada"), ("dream", "tiny-dream")]


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_batched(engine, model, request):
    """All cases in one go, 16 running at any time, policies and settings mixed."""
    engine = request.getfixturevalue(engine)
    batch = cases(model)
    random.Random(7).shuffle(batch)
    check(differences(engine, batch), len(batch))


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_alone(engine, model, request):
    """A sample of the cases of each policy of each file, one request at a time."""
    engine = request.getfixturevalue(engine)
    alone = sample(model, seed=8, share=ALONE)
    check([difference for case in alone for difference in differences(engine, [case])], len(alone))


def test_cases_of_no_cache():
    """The files that issue `cache none` rests on are there and are run."""
    count = {model: sum(c.settings["dllm_cache"] == "none" for c in cases(model)) for _, model in MODELS}
    assert count == {"tiny-llada": 60 + 19 + 12, "tiny-dream": 60 + 12}
