"""How requests start where attention is causal by blocks: what they must have room for."""

import numpy as np
import pytest
from common import CHECKPOINTS
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

import vllm_dllm
from vllm_dllm.likelihood.passes import Chain
from vllm_dllm.scored import CARRIER

PAGES, PAGE, BUDGET = 64, 32, 256


@pytest.fixture(scope="module")
def config():
    vllm_dllm.register()
    return EngineArgs(
        model=str(CHECKPOINTS / "tiny-sdar"),
        dtype="float32",
        max_model_len=512,
        max_num_batched_tokens=BUDGET,
        additional_config={"dllm_overlap": "off"},
    ).create_engine_config()


@pytest.fixture
def scheduler(config):
    from vllm_dllm.scheduler import DllmScheduler

    config.cache_config.num_gpu_blocks = PAGES
    spec = FullAttentionSpec(block_size=PAGE, num_kv_heads=4, head_size=32, dtype=config.model_config.dtype)
    caches = KVCacheConfig(PAGES, [], [KVCacheGroupSpec(["layer"], spec)])
    return DllmScheduler(config, caches, StructuredOutputManager(config), block_size=PAGE)


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
