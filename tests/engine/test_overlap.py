"""Two sets of requests in flight by turns: the tokens and passes that there are otherwise."""

import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from common import Engine
from golden_cases import cases, differences, sample
from prompts import params, task_prompts, token_ids
from refreshes import DUAL, delays


@pytest.fixture(scope="module")
def by_turns(tmp_path_factory) -> Iterator[Engine]:
    """With a worker of its own, and little room in a step, so that refreshes are left out."""
    arguments = {
        "additional_config": {"dllm_hidden_cache": True, "dllm_overlap": "on"},
        "distributed_executor_backend": "mp",
        "max_num_batched_tokens": 512,
    }
    with closing(Engine("tiny-llada", tmp_path_factory.mktemp("by_turns") / "trace.jsonl", **arguments)) as engine:
        yield engine


def test_golden_cases(by_turns, sampling):
    batch = sample("tiny-llada", sampling, least=2)
    random.Random(sampling.seed).shuffle(batch)
    sampling.check(differences(by_turns, batch))
    sampling.check([differences(by_turns, [case])[0] for case in batch[:2]])


def test_requests_that_come_and_go_and_caches_that_are_reset(by_turns):
    """Without a cache an answer does not hang on when everything was recomputed."""
    rng, engine = random.Random(4), by_turns.llm.llm_engine
    batch = rng.sample([case for case in cases("tiny-llada") if case.file.endswith(".llada")], 16)
    answers: dict[str, list[int]] = {}
    to_come = [(f"{i}{kind}", case) for i, case in enumerate(batch) for kind in ("stay", "go")]
    steps = 0
    while to_come or engine.has_unfinished_requests():
        for name, case in to_come[: rng.randint(0, 3)]:
            engine.add_request(name, case.prompt, case.params)
            to_come.remove((name, case))
        for output in engine.step():
            if output.finished:
                answers[output.request_id] = token_ids(output)
        steps += 1
        if steps % 6 == 0:
            engine.abort_request([f"{rng.randrange(16)}go"])
            engine.reset_prefix_cache(reset_running_requests=True)
            by_turns.check_integrity()
    by_turns.check_idle()
    for i, case in enumerate(batch):
        assert answers[f"{i}stay"] == case.case["output_ids"], case.settings


def test_a_refresh_waits_no_longer_than_asked(by_turns):
    """How many wait hangs on when the requests arrive; that some do, by turns too, is seen in tests/unit/test_scheduler.py."""
    found = by_turns.run(task_prompts(16, seed=11), [params(128, **DUAL, dllm_max_delay=2)] * 16)
    by_turns.check_idle()
    waited = [delays(trace) for _, trace in found]
    assert max(map(max, waited)) <= 2
    assert not any(first for first, *_ in waited), "a first pass has nothing to go on with"
