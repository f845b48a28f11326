"""Golden files of SDAR and LLaDA2: the same tokens and the same passes as their public code's."""

import pytest
from causal_cases import BlockCase, differences
from common import golden

FILES = [("sdar", "tiny-sdar", "sdar"), ("llada2", "tiny-llada2", "llada2")]


@pytest.mark.parametrize("fixture, model, source", FILES)
def test_sixteen_at_once(fixture, model, source, request):
    assert not differences(request.getfixturevalue(fixture), golden(model, source))


@pytest.mark.parametrize("fixture, model, source", FILES)
def test_alone(fixture, model, source, request, sampling):
    engine = request.getfixturevalue(fixture)
    for case in sampling.take(golden(model, source), lambda case: case["block_length"], 0.1, 2):
        assert not differences(engine, [case])


@pytest.mark.parametrize("fixture, model, source", FILES)
def test_the_other_cache_gives_the_same_tokens(fixture, model, source, request, sampling):
    """`none` recomputes everything, and needs no pass that commits a block."""
    other = {"sdar": "none", "llada2": "block"}[source]
    cases = sampling.take(golden(model, source), lambda case: case["block_length"], 0.3, 4)
    assert not differences(request.getfixturevalue(fixture), cases, dllm_cache=other)


def test_commits_beside_the_next_block(sdar):
    """`dllm_merge_commits`: fewer passes for the same tokens."""
    cases = golden("tiny-sdar", "sdar")
    assert not differences(sdar, cases[::2], compare_passes=False, dllm_merge_commits=True)
    case = next(c for c in cases if not c["stop"] and c["block_length"] == 4)
    asked = BlockCase("sdar", 0, case, {"dllm_merge_commits": True})
    ((_, trace),) = sdar.run([asked.prompt], [asked.params])
    assert len(trace["query_tokens"]) == len(case["unmasked"]) and max(trace["query_tokens"][1:]) == 8
