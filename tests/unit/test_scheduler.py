"""The scheduler alone, with steps in flight: what comes back is booked as what went out."""

import random

import numpy as np
import pytest
from common import MASK
from lone_scheduler import PAGES, config_of, scheduler_of
from vllm import SamplingParams
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import Request, RequestStatus

from vllm_dllm.engine_config import allow_overlap
from vllm_dllm.messages import StepObservation
from vllm_dllm.options import SettingError
from vllm_dllm.overlap import Overlap
from vllm_dllm.vllm_messages import DllmModelRunnerOutput

PROMPT = 5


@pytest.fixture(scope="module")
def config():
    return config_of(
        "tiny-llada",
        max_model_len=256,
        max_num_batched_tokens=512,
        additional_config={
            "dllm_cache": "dual",
            "dllm_block_length": 16,
            "dllm_tokens_per_step": 4,
            "dllm_overlap": "off",
        },
    )


@pytest.fixture
def scheduler(config):
    return scheduler_of(config)


def add(scheduler, req_id: str, max_tokens: int = 32, **settings) -> Request:
    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, extra_args=settings or None)
    request = Request(req_id, [7] * PROMPT, params, None)
    scheduler.add_request(request)
    return request


def answer(step: SchedulerOutput, broken: tuple[str, ...] = (), weights: int = 0) -> DllmModelRunnerOutput:
    """What a worker says of a step: position p becomes token 20 + p % 50, each as sure as the others."""
    batch, ids = step.batch, list(step.num_scheduled_tokens)
    read = batch.positions[batch.places]
    places = [p for i in map(ids.index, broken) for p in range(batch.read_starts[i], batch.read_starts[i + 1])]
    observation = StepObservation(
        tokens=(20 + read % 50).astype(np.int32),
        confidence=np.full(len(read), 0.5, np.float32),
        entropy=np.zeros(len(read), np.float32),
        broken=np.asarray(places) if places else None,
    )
    return DllmModelRunnerOutput(
        req_ids=ids, req_id_to_index={r: i for i, r in enumerate(ids)}, observation=observation, weights=weights
    )


def finish(scheduler, step: SchedulerOutput, **kwargs) -> dict[str, list[int]]:
    """The tokens that the step's output brought, by request."""
    outputs = scheduler.update_from_output(step, answer(step, **kwargs))
    scheduler.check_integrity()
    return {o.request_id: o.new_token_ids for per_client in outputs.values() for o in per_client.outputs}


def test_a_request_with_a_pass_in_flight_is_in_no_other_step(scheduler):
    add(scheduler, "a")
    first = scheduler.schedule()
    add(scheduler, "b")
    second = scheduler.schedule()
    third = scheduler.schedule()
    assert [list(s.num_scheduled_tokens) for s in (first, second, third)] == [["a"], ["b"], []]
    assert third.batch is None
    scheduler.check_integrity()
    finish(scheduler, first)
    assert list(scheduler.schedule().num_scheduled_tokens) == ["a"]


@pytest.mark.parametrize("way", ["together", "by turns", "now one, now the other"])
@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_refresh_waits_no_longer_than_asked(scheduler, way, most):
    """Blocks that start together now and then, and room for three full passes in a step; in one set or in two. By turns a
    run may have room for all of them: that some wait is seen over several."""
    scheduler.max_num_scheduled_tokens = 256
    scheduler.overlap = Overlap("on" if way == "by turns" else "off")
    waits: list[int] = []
    for seed in range(3):
        rng = random.Random(seed)
        blocks = [rng.choice([8, 16]) for _ in range(16)]
        for i, block in enumerate(blocks):
            per_step = rng.choice([1, 2, block // 4])  # more passes than a refresh may wait
            add(scheduler, f"{i}", 64, dllm_max_delay=most, dllm_block_length=block, dllm_tokens_per_step=per_step)
        full, sent = 0, []
        while scheduler.running or scheduler.waiting:
            if len(sent) < 2 and scheduler.has_requests():
                sent.append(scheduler.schedule())
                for _, running, planned in scheduler.steps[sent[-1].step]:
                    full += planned.full
                    waits.append(running.decoding.oldest_mark)  # -1: nothing is to be recomputed
                    assert planned.full or waits[-1] < most, "partial passes are those that may still wait, or need not"
            else:
                finish(scheduler, sent.pop(0))
                if way == "now one, now the other":  # as `auto` goes
                    scheduler.overlap.by_turns = rng.random() < 0.5
        assert full == sum(64 // block for block in blocks), "each block was recomputed once"
    assert max(waits) <= most and any(wait > 0 for wait in waits) == (most > 0)


@pytest.mark.parametrize("seed", range(8))
def test_outputs_in_any_order_give_each_request_its_own_tokens(scheduler, seed):
    """Two sets of requests, a step of each in flight at any time; the outputs come back in either order."""
    rng = random.Random(seed)
    lengths = {f"{i}": rng.choice([16, 24, 32, 64]) for i in range(6)}
    got: dict[str, list[int]] = {i: [] for i in lengths}
    waiting, in_flight = list(lengths), []
    while waiting or in_flight or scheduler.running:
        for i in waiting[: rng.choice([1, 2, 3])]:
            add(scheduler, i, lengths[i], dllm_cache=rng.choice(["none", "dual", "entropy", "dkv-decode"]))
            waiting.remove(i)
        step = scheduler.schedule()
        if step.batch is not None:
            assert not {i for s in in_flight for i in s.num_scheduled_tokens} & set(step.num_scheduled_tokens)
            in_flight.append(step)
        if len(in_flight) == 2 or step.batch is None:
            for i, tokens in finish(scheduler, in_flight.pop(rng.randrange(len(in_flight)))).items():
                got[i] += tokens
    assert got == {i: [20 + (PROMPT + p) % 50 for p in range(n)] for i, n in lengths.items()}
    assert not scheduler.steps and not scheduler.active and scheduler.check_integrity() == 0


def test_a_cache_reset_books_no_pass_in_flight_as_another(scheduler):
    """A partial pass in flight stays a partial one; the pass behind it is full."""
    for i in "ab":
        add(scheduler, i)
    finish(scheduler, scheduler.schedule())
    partial = scheduler.schedule()
    assert partial.num_scheduled_tokens == {"a": 16, "b": 16}
    scheduler.reset_prefix_cache(reset_running_requests=True)
    assert scheduler.active["a"].decoding.pages.num_stale == 2
    finish(scheduler, partial)
    assert scheduler.listeners.counts.counts["full_passes"] == 2 and scheduler.listeners.counts.counts["passes"] == 4
    assert scheduler.schedule().num_scheduled_tokens == {"a": PROMPT + 32, "b": PROMPT + 32}


def test_a_cache_reset_replans_a_pass_that_waits_for_room(scheduler):
    add(scheduler, "a")
    add(scheduler, "b", dllm_block_length=32)
    finish(scheduler, scheduler.schedule())
    scheduler.max_num_scheduled_tokens = 40
    step = scheduler.schedule()
    assert step.num_scheduled_tokens == {"a": 16}, "32 more do not fit"
    assert len(scheduler.active["b"].planned.queries) == 32
    scheduler.reset_prefix_cache(reset_running_requests=True)
    finish(scheduler, step)
    assert scheduler.schedule().num_scheduled_tokens == {"b": PROMPT + 32}


def test_what_was_read_over_keys_of_other_weights_is_not_taken(scheduler):
    """Two steps in flight, and new weights between them: the pass over old keys is done again, whole."""

    def passes() -> list[int]:
        return [scheduler.active[i].decoding.canvas.passes for i in "ab"]

    add(scheduler, "a")
    finish(scheduler, scheduler.schedule())
    old = scheduler.schedule()
    assert old.num_scheduled_tokens == {"a": 16}
    add(scheduler, "b")
    finish(scheduler, scheduler.schedule(), weights=1)
    assert passes() == [1, 1], "a full pass reads no older keys"
    finish(scheduler, old)
    assert passes() == [2, 1], "nor was there anything wrong with this one"
    mixed = scheduler.schedule()
    assert mixed.num_scheduled_tokens == {"a": 16, "b": 16}
    masked = scheduler.active["a"].decoding.canvas.masked.copy()
    finish(scheduler, mixed, weights=1, broken=("a",))
    assert passes() == [2, 2] and (scheduler.active["a"].decoding.canvas.masked == masked).all()
    again = scheduler.schedule()
    assert again.num_scheduled_tokens == {"a": PROMPT + 32, "b": 16}
    finish(scheduler, again, weights=1)
    assert passes() == [3, 3] and scheduler.schedule().num_scheduled_tokens["a"] == 16
    assert scheduler.listeners.counts.counts["passes"] == 6


def test_a_pass_that_is_done_again_waits_for_room_and_not_as_a_partial_one(scheduler):
    add(scheduler, "a", dllm_max_delay=3)
    add(scheduler, "b", dllm_max_delay=3)
    finish(scheduler, scheduler.schedule())
    finish(scheduler, scheduler.schedule(), weights=1)
    scheduler.max_num_scheduled_tokens = PROMPT + 32
    first = scheduler.schedule()
    assert first.num_scheduled_tokens == {"a": PROMPT + 32}
    finish(scheduler, first, weights=1)
    assert scheduler.schedule().num_scheduled_tokens == {"b": PROMPT + 32}


def test_an_abort_while_a_pass_is_in_flight(scheduler):
    for i in "ab":
        add(scheduler, i)
    step = scheduler.schedule()
    scheduler.finish_requests("a", RequestStatus.FINISHED_ABORTED)
    add(scheduler, "a", max_tokens=64)  # another one by the same name: the pass in flight is not its own
    again = scheduler.schedule()
    assert again.num_scheduled_tokens == {"a": PROMPT + 64}
    finish(scheduler, step)
    assert scheduler.active["a"].decoding.canvas.passes == 0 and scheduler.active["b"].decoding.canvas.passes == 1
    finish(scheduler, again)
    assert scheduler.active["a"].decoding.canvas.passes == 1


def test_a_request_without_finite_numbers_ends_alone(scheduler):
    for i in "abc":
        add(scheduler, i)
    finish(scheduler, scheduler.schedule())
    step = scheduler.schedule()
    pages = scheduler.active["b"].pages[0]
    outputs = scheduler.update_from_output(step, answer(step, broken=("b",)))
    (ended,) = [o for o in outputs[0].outputs if o.finish_reason is not None]
    assert ended.request_id == "b" and "not finite" in ended.stop_reason
    assert scheduler.check_integrity() == 2 and scheduler.listeners.counts.counts["failed_requests"] == 1
    following = scheduler.schedule()
    assert list(following.num_scheduled_tokens) == ["a", "c"] and following.batch.wipe == pages
    finish(scheduler, following)
    assert scheduler.schedule().batch.wipe == []


def test_the_pages_of_an_aborted_request_without_finite_numbers_are_wiped(scheduler):
    for i in "ab":
        add(scheduler, i)
    step = scheduler.schedule()
    pages = scheduler.active["b"].pages[0]
    scheduler.finish_requests("b", RequestStatus.FINISHED_ABORTED)
    scheduler.update_from_output(step, answer(step, broken=("b",)))
    assert set(pages) <= set(scheduler.schedule().batch.wipe)


def test_overlap_is_there_where_the_executor_comes_back_before_a_step_is_computed(config, monkeypatch):
    monkeypatch.setattr(config.parallel_config, "distributed_executor_backend", "uni")
    with pytest.raises(SettingError, match="^dllm_overlap='on' is not allowed with distributed_executor_backend='uni'"):
        allow_overlap(config, "on")
    assert allow_overlap(config, "auto") == "off" and config.max_concurrent_batches == 1
    monkeypatch.setattr(config.parallel_config, "distributed_executor_backend", "mp")
    for choice, steps in [("auto", 2), ("on", 2), ("off", 1)]:
        assert allow_overlap(config, choice) == choice and config.max_concurrent_batches == steps


@pytest.fixture
def by_turns(scheduler):
    scheduler.overlap = Overlap("on")
    return scheduler


def test_half_of_the_requests_are_in_a_step_and_the_others_in_the_next(by_turns):
    for i in "abcde":
        add(by_turns, i)
    first = by_turns.schedule()
    assert list(first.num_scheduled_tokens) == ["a", "b", "c"] and by_turns.has_requests()
    second = by_turns.schedule()
    assert list(second.num_scheduled_tokens) == ["d", "e"]
    assert not by_turns.has_requests(), "nothing more can go out: vLLM is to wait"
    finish(by_turns, first)
    assert by_turns.has_requests()
    third = by_turns.schedule()
    assert list(third.num_scheduled_tokens) == ["a", "b", "c"]
    finish(by_turns, second)
    finish(by_turns, third)
    assert by_turns.has_requests()


def test_sets_of_unequal_size_even_out(by_turns):
    for i in "abcdef":
        add(by_turns, i)
    first, second = by_turns.schedule(), by_turns.schedule()
    for i in "ef":
        by_turns.finish_requests(i, RequestStatus.FINISHED_ABORTED)
    finish(by_turns, first)
    third = by_turns.schedule()
    assert list(third.num_scheduled_tokens) == ["a", "b"], "half of the four that are left"
    finish(by_turns, second)
    assert sorted(by_turns.schedule().num_scheduled_tokens) == ["c", "d"]
    finish(by_turns, third)


def test_one_request_makes_no_empty_steps(by_turns):
    """With a step in flight vLLM asks whether there is more to send, and must hear that there is not."""
    add(by_turns, "a")
    while by_turns.has_requests():
        step = by_turns.schedule()
        if step.batch is None:
            assert not by_turns.requests, "only to tell that the last request has ended"
            break
        assert not by_turns.has_requests()
        finish(by_turns, step)
    assert not by_turns.requests


def test_a_request_that_comes_while_a_step_is_in_flight_is_in_the_next_if_there_is_room(by_turns):
    add(by_turns, "a")
    first = by_turns.schedule()
    add(by_turns, "b")
    assert by_turns.has_requests()
    assert list(by_turns.schedule().num_scheduled_tokens) == ["b"]
    for i in range(PAGES):
        add(by_turns, f"long {i}", max_tokens=200)
    while by_turns.has_requests():
        assert by_turns.schedule().batch is not None, "an empty step"
    assert by_turns.waiting
    finish(by_turns, first)


def test_a_guided_request_that_finds_one_place_makes_no_empty_steps(by_turns):
    by_turns.max_num_active_reqs = 2
    add(by_turns, "a")
    first = by_turns.schedule()
    add(by_turns, "guided", dllm_cfg_scale=1.0)
    assert not by_turns.has_requests(), "it takes two"
    finish(by_turns, first)


def test_nothing_goes_out_beside_a_step_in_flight_while_paused(by_turns):
    for i in "abcd":
        add(by_turns, i)
    first = by_turns.schedule()
    by_turns.set_pause_state(PauseState.PAUSED_ALL)
    assert not by_turns.has_requests()
    finish(by_turns, first)
    assert not by_turns.has_requests()
    by_turns.set_pause_state(PauseState.UNPAUSED)
    assert by_turns.has_requests()


def test_without_turns_nothing_goes_out_beside_a_step_in_flight(scheduler):
    add(scheduler, "a")
    first = scheduler.schedule()
    add(scheduler, "b")
    assert not scheduler.has_requests()
    finish(scheduler, first)
    assert list(scheduler.schedule().num_scheduled_tokens) == ["a", "b"]


def test_tokens_are_the_masks_until_they_are_unmasked(scheduler):
    request = add(scheduler, "a", max_tokens=16)
    step = scheduler.schedule()
    assert step.batch.token_ids.tolist() == [7] * PROMPT + [MASK] * 16
    assert request.num_in_flight_tokens == PROMPT + 16
    finish(scheduler, step)
    assert request.num_in_flight_tokens == 0
