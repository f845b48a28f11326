"""Golden files: the same tokens and the same passes as the authors' code, alone and 16 requests at once."""

import random

import pytest
from golden_cases import cases, differences, sample

TOGETHER = 1 / 8  # of the cases of each policy of each file (`pytest --golden all` runs every one)

MODELS = [("llada", "tiny-llada"), ("dream", "tiny-dream")]


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_batched(engine, model, request, sampling):
    """In one go, 16 running at any time, policies and settings mixed."""
    engine = request.getfixturevalue(engine)
    batch = sample(model, sampling, TOGETHER, least=4)
    random.Random(sampling.seed).shuffle(batch)
    sampling.check(differences(engine, batch))


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_alone(engine, model, request, sampling):
    """One request at a time: one of each policy of each file."""
    engine = request.getfixturevalue(engine)
    alone = sample(model, sampling)
    sampling.check([difference for case in alone for difference in differences(engine, [case])])


def test_cases_of_no_cache():
    """The files that issue `cache none` rests on are there and are run."""
    count = {model: sum(c.settings["dllm_cache"] == "none" for c in cases(model)) for _, model in MODELS}
    canvases = {"tiny-llada": 60 + 20 + 60, "tiny-dream": 60 + 20 + 60}  # given text; growing; formats
    guided = 20
    distilled = {"tiny-llada": 22, "tiny-dream": 23}
    assert count == {
        "tiny-llada": 60 + 19 + 12 + guided + canvases["tiny-llada"] + distilled["tiny-llada"],
        "tiny-dream": 60 + 12 + canvases["tiny-dream"] + distilled["tiny-dream"],
    }
