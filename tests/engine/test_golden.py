"""Golden files: the same tokens and the same passes as the authors' code, alone and 16 requests at once."""

import random

import pytest
from golden_cases import cases, check, sample

ALONE = 0.25  # the part of the cases that also runs alone

MODELS = [("llada", "tiny-llada"), ("dream", "tiny-dream")]


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_batched(engine, model, request):
    """All cases in one go, 16 running at any time, policies and settings mixed."""
    engine = request.getfixturevalue(engine)
    batch = cases(model)
    random.Random(7).shuffle(batch)
    results = engine.run([c.prompt for c in batch], [c.params for c in batch])
    check([c.difference(o.outputs[0].token_ids, t) for c, (o, t) in zip(batch, results, strict=True)], len(batch))


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_alone(engine, model, request):
    """A sample of the cases of each policy of each file, one request at a time."""
    engine = request.getfixturevalue(engine)
    alone, found = sample(model, seed=8, share=ALONE), []
    for case in alone:
        ((output, trace),) = engine.run([case.prompt], [case.params])
        found.append(case.difference(output.outputs[0].token_ids, trace))
    check(found, len(alone))


def test_cases_of_no_cache():
    """The files that issue `cache none` rests on are there and are run."""
    count = {model: sum(c.settings["dllm_cache"] == "none" for c in cases(model)) for _, model in MODELS}
    assert count == {"tiny-llada": 60 + 19 + 12, "tiny-dream": 60 + 12}
