"""Passes that are padded and replayed, by a stand-in for CUDA graphs: the golden tokens, whatever was replayed before."""

import random
from contextlib import contextmanager

import pytest
from golden_cases import differences, sample

PROBED = ("d2", "elastic")
MODELS = [("llada", "tiny-llada"), ("dream", "tiny-dream")]


@contextmanager
def graphs(engine, **arguments):
    """Yields a list that will say how many passes were replayed, and how many that a probe looked into."""
    replays = []
    engine.llm.collective_rpc("use_graphs", kwargs=arguments)
    try:
        yield replays
    finally:
        replays += engine.llm.collective_rpc("use_no_graphs")[0]


@pytest.mark.parametrize(("engine", "model"), MODELS)
def test_together(engine, model, request, sampling):
    """16 requests at a time, policies mixed: first steps that are all replayed, then `d2`'s too, then some that a probe keeps
    eager."""
    engine = request.getfixturevalue(engine)
    batch = sample(model, sampling, 1 / 16, least=2)
    random.Random(sampling.seed).shuffle(batch)
    probed = [case.settings["dllm_cache"] for case in batch if case.settings["dllm_cache"] in PROBED]
    assert set(probed) == set(PROBED)
    batch.sort(
        key=lambda case: 1 + PROBED.index(case.settings["dllm_cache"]) if case.settings["dllm_cache"] in PROBED else 0
    )
    with graphs(engine, most=4096) as replays:
        sampling.check(differences(engine, batch))
    assert min(replays) > 16, replays


def test_alone(llada, sampling):
    """A pass is its graph's only request, and some are too large for any graph."""
    alone = sample("tiny-llada", sampling)
    with graphs(llada, most=40) as replays:
        sampling.check([difference for case in alone for difference in differences(llada, [case])])
    assert replays[0] > 2 * len(alone), replays
