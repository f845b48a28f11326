"""Passes that are padded and replayed, by a stand-in for CUDA graphs: the golden tokens, whatever was replayed before."""

import random
from contextlib import contextmanager

import pytest
from golden_cases import differences, sample

PROBED = ("elastic", "d2")
MODELS = [("llada", "tiny-llada"), ("dream", "tiny-dream")]


@contextmanager
def graphs(engine, **arguments):
    """Yields a list that will say how many passes were replayed."""
    replays = []
    engine.llm.collective_rpc("use_graphs", kwargs=arguments)
    try:
        yield replays
    finally:
        replays += engine.llm.collective_rpc("use_no_graphs")


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_together(engine, model, request, sampling):
    """16 requests at a time, policies mixed: first steps that are all replayed, then some that a probe keeps eager."""
    engine = request.getfixturevalue(engine)
    batch = sample(model, sampling, 1 / 8, least=2)
    random.Random(sampling.seed).shuffle(batch)
    batch.sort(key=lambda case: case.settings["dllm_cache"] in PROBED)
    with graphs(engine, most=4096) as replays:
        sampling.check(differences(engine, batch))
    assert replays[0] > 16, replays


def test_alone(llada, sampling):
    """A pass is its graph's only request, and some are too large for any graph."""
    alone = sample("tiny-llada", sampling, 1 / 24)
    with graphs(llada, most=40) as replays:
        sampling.check([difference for case in alone for difference in differences(llada, [case])])
    assert replays[0] > 2 * len(alone), replays
