"""Refresh packing (`dllm_max_delay`): full passes over the step's token budget wait, no longer than asked."""

import pytest
from prompts import params, task_prompts, token_ids
from refreshes import BLOCK, DUAL, PER_STEP, delays

LENGTH = 64


def run(engine, prompts, **settings) -> list[tuple[list[int], dict]]:
    found = engine.run(prompts, [params(LENGTH, **DUAL, **settings) for _ in prompts])
    engine.check_idle()
    return [(token_ids(output), trace) for output, trace in found]


def test_without_delay_a_refresh_never_waits_for_others(small):
    prompts = task_prompts(8, seed=11)
    alone = [run(small, [p])[0] for p in prompts]
    together = run(small, prompts)
    for (tokens, trace), (tokens_alone, trace_alone) in zip(together, alone, strict=True):
        assert tokens == tokens_alone
        assert trace["query_tokens"] == trace_alone["query_tokens"]
        assert delays(trace) == [0] * (LENGTH // BLOCK)


@pytest.mark.parametrize("most", [1, 3])
def test_a_refresh_waits_no_longer_than_asked(small, most):
    waited = []
    traces = []
    while not any(waited):  # requests that start far enough from each other have room for every refresh
        assert len(traces) < 8 * 8, "every refresh had room: the test packs nothing"
        traces += [trace for _, trace in run(small, task_prompts(8, seed=11), dllm_max_delay=most)]
        waited = [delay for trace in traces for delay in delays(trace)]
    assert max(waited) <= most
    for trace in traces:
        assert len(trace["unmasked"]) == LENGTH // PER_STEP
        assert delays(trace)[0] == 0, "a first pass has nothing to go on with"
