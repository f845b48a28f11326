"""How requests start where attention is causal by blocks: what they must have room for."""

import numpy as np
import pytest
from lone_scheduler import config_of, scheduler_of
from vllm import SamplingParams
from vllm.v1.request import Request

from vllm_dllm.likelihood.passes import Chain
from vllm_dllm.scored import CARRIER

BUDGET = 256


@pytest.fixture(scope="module")
def config():
    return config_of(
        "tiny-sdar", max_model_len=512, max_num_batched_tokens=BUDGET, additional_config={"dllm_overlap": "off"}
    )


@pytest.fixture
def scheduler(config):
    return scheduler_of(config)


def add(scheduler, req_id: str, prompt: int, target: int | None = None, **own) -> None:
    """A request with a prompt so long; with a `target`, one that scores so many tokens behind it."""
    carried = {} if target is None else {CARRIER: [[9] * target, Chain(0, target, target).pack()]}
    params = SamplingParams(temperature=0, max_tokens=target or 8, ignore_eos=True, extra_args=carried, **own)
    ids = (np.arange(prompt) * (1 + len(scheduler.requests)) % 50 + 20).tolist()
    scheduler.add_request(Request(req_id, ids, params, None))


def test_what_may_be_computed_in_parts_starts_in_what_is_left_of_a_step(scheduler):
    add(scheduler, "a", 150)
    add(scheduler, "b", 150)
    assert scheduler.schedule().num_scheduled_tokens == {"a": 148, "b": 96}, "whole pages of 32 fit into 108"


def test_a_target_waits_for_room_for_its_whole_canvas(scheduler):
    add(scheduler, "a", 150)
    add(scheduler, "scored", 150, target=20)
    step = scheduler.schedule()
    assert step.num_scheduled_tokens == {"a": 148} and len(step.batch.positions) <= BUDGET
    scheduler.finish_requests("a", scheduler.requests["a"].status.FINISHED_ABORTED)
    assert scheduler.schedule().num_scheduled_tokens == {"scored": 152}, "up to the end of its first token's block"


def test_a_scored_prompt_starts_with_its_first_block(scheduler):
    add(scheduler, "a", 220)
    add(scheduler, "b", 400, prompt_logprobs=0)
    assert scheduler.schedule().num_scheduled_tokens == {"a": 220, "b": 4}
