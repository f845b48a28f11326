"""Replayed passes in the model runner alone: which graph is chosen, and that a replay is the eager pass, bit for bit."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common import CHECKPOINTS
from graph_stand_in import WithGraphs
from loaded import PAGE, Loaded
from vllm.config import CUDAGraphMode, set_current_vllm_config
from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.worker.gpu.attn_utils import AttentionCGSupportInfo
from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

from vllm_dllm import engine_config
from vllm_dllm.messages import Batch, Readout
from vllm_dllm.worker.buffers import Shape, StepBuffers
from vllm_dllm.worker.graphs import Graphs, graph_mode
from vllm_dllm.worker.schedules import make_room

REQUESTS, TOKENS, PAGES = 8, 256, 4


@pytest.fixture(scope="module")
def loaded(world) -> Loaded:
    return Loaded(CHECKPOINTS / "tiny-llada", max_num_seqs=REQUESTS, max_num_batched_tokens=TOKENS)


@pytest.fixture
def worker(loaded):
    worker = WithGraphs()
    worker.model_runner = loaded.runner
    with set_current_vllm_config(loaded.config):
        yield worker
        worker.use_no_graphs()


def batch(requests: int, rng: np.random.Generator, most: int = 30, least: int = 1) -> Batch:
    """Of each request up to `most` positions of a canvas of up to 120, in pages of its own."""
    ends = rng.integers(40, 120, requests).astype(np.int32)
    positions = [np.sort(rng.choice(end, rng.integers(least, most + 1), replace=False)) for end in ends]
    starts = np.cumsum([0, *map(len, positions)]).astype(np.int32)
    pages = rng.permutation(np.arange(1, 1 + requests * PAGES)).astype(np.int32)
    return Batch(
        positions=np.concatenate(positions).astype(np.int32),
        token_ids=rng.integers(2, 90, starts[-1]).astype(np.int32),
        query_starts=starts,
        ends=ends,
        block_table=pages.reshape(requests, PAGES),
        places=np.arange(starts[-1], dtype=np.int32),
        read_starts=starts,
        readouts=[Readout(margin=True)] * requests,
    )


def run(runner, batches: list[Batch]) -> tuple[np.ndarray, ...]:
    """What all batches read, and the keys and values that they leave, from the same ones at the start."""
    for number, cache in enumerate(runner.kv_caches.values()):
        cache.normal_(generator=torch.Generator().manual_seed(number))
    read = [runner.run(b, [str(i) for i in range(len(b.ends))]).get_output().observation for b in batches]
    keys = [cache.clone().numpy() for cache in runner.kv_caches.values()]
    return np.concatenate([r.tokens for r in read]), np.concatenate([r.confidence for r in read]), *keys


def test_a_replay_is_the_eager_pass_bit_for_bit(worker):
    rng = np.random.default_rng(0)
    batches = [batch(n, rng) for n in (1, 3, 8, 1, 2, 5, 8, 4, 1)]
    eager = run(worker.model_runner, batches)
    worker.use_graphs(TOKENS)
    for one, other in zip(run(worker.model_runner, batches), eager, strict=True):
        np.testing.assert_array_equal(one, other)
    assert worker.model_runner.cudagraph_manager.replays == len(batches)


def test_the_attentions_metadata_is_made_anew_when_anything_that_it_sees_has_changed(worker):
    rng = np.random.default_rng(5)
    step, other = batch(3, rng), batch(3, rng)
    moved = replace(step, positions=step.positions[::-1].copy())  # other positions between the same bounds
    worker.use_graphs(TOKENS)
    runner, made = worker.model_runner, []
    prepare = runner.graphs.prepare
    runner.graphs.prepare = lambda inputs, for_capture: made.append(inputs) or prepare(inputs, for_capture)
    for batches, count in (([step, step, moved], 1), ([other], 2), ([step, step], 3)):
        run(runner, batches)
        assert len(made) == count
    for inputs in made:  # what a graph was captured for
        assert (inputs.longest_query, inputs.longest_canvas) == (min(inputs.shape.tokens, 128), 128)
    with torch.inference_mode():
        runner._eager(step)  # its metadata may lie where the graph's did
    run(runner, [step])
    assert len(made) == 4
    longer = replace(step, ends=step.ends + 1)
    run(runner, [longer])
    assert len(made) == 5


def test_where_a_backend_has_graphs_for_equally_many_queries_only_those_are_replayed(worker):
    rng = np.random.default_rng(4)
    blocks = [batch(n, rng, most=16, least=16) for n in (1, 3, 8, 2, 5, 4)]
    others = [batch(3, rng), batch(2, rng, most=15, least=15), batch(1, rng, most=17, least=17)]
    batches = [blocks[0], others[0], *blocks[1:3], *others[1:], *blocks[3:]]
    eager = run(worker.model_runner, batches)
    worker.use_graphs(100, uniform=16)
    graphs = worker.model_runner.graphs
    for one in blocks:
        graph = graphs.choose(one)
        if len(one.ends) * 16 > 96:
            assert graph is None
        else:
            assert graph.uniform_token_count == 16 and graphs.shape(graph).requests >= len(one.ends)
            assert graphs._fill(one, graph).longest_query == 16
    assert all(graphs.choose(one) is None for one in others)
    for one, other in zip(run(worker.model_runner, batches), eager, strict=True):
        np.testing.assert_array_equal(one, other)
    assert worker.model_runner.cudagraph_manager.replays == len(blocks) - 1, "the one of 8 requests is too large"


@pytest.mark.parametrize(
    "support, mode",
    [
        (AttentionCGSupport.ALWAYS, CUDAGraphMode.FULL),
        (AttentionCGSupport.UNIFORM_BATCH, CUDAGraphMode.FULL_DECODE_ONLY),
        (AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE, CUDAGraphMode.NONE),
        (AttentionCGSupport.NEVER, CUDAGraphMode.NONE),
    ],
)
def test_what_a_backend_can_is_what_is_captured(loaded, support, mode):
    config = deepcopy(loaded.config)
    config.compilation_config.cudagraph_mode = CUDAGraphMode.FULL
    assert graph_mode(config, AttentionCGSupportInfo(support, "SOME_ATTN")) == mode
    assert config.compilation_config.cudagraph_mode == mode
    config.compilation_config.cudagraph_mode = CUDAGraphMode.NONE
    assert graph_mode(config, AttentionCGSupportInfo(support, "SOME_ATTN")) == CUDAGraphMode.NONE


# not `query_starts` and `ends`: CPU attention's kernel has them from its schedule, too, and where the two do not agree
# it writes where it must not
@pytest.mark.parametrize("array", ["positions", "slots", "token_ids", "block_table"])
def test_an_array_that_a_graph_does_not_see_change_is_noticed(worker, array):
    """So the test above, and those with golden files, would fail if a graph read what is not in its buffers."""
    rng = np.random.default_rng(1)
    batches = [batch(n, rng) for n in (2, 4)]
    eager = run(worker.model_runner, batches)
    worker.use_graphs(128, frozen=array)
    assert (run(worker.model_runner, batches)[0] != eager[0]).any()


def test_every_step_that_there_can_be_has_the_smallest_graph_that_holds_it_or_none(worker):
    worker.use_graphs(100)
    graphs = worker.model_runner.graphs
    sizes = engine_config.graph_sizes(100)
    for tokens in range(1, TOKENS + 1):
        for requests in range(1, min(tokens, REQUESTS) + 1):
            starts = np.arange(requests + 1) * tokens // requests
            step = SimpleNamespace(positions=range(tokens), ends=range(requests), query_starts=starts, placed=[])
            graph = graphs.choose(step)
            if tokens > 100:
                assert graph is None
            else:
                shape = graphs.shape(graph)
                assert shape.tokens == min(size for size in sizes if size >= tokens)
                assert shape.requests >= requests and shape.pages == PAGES
            assert graphs.choose(SimpleNamespace(**vars(step) | {"placed": ["an image"]})) is None


def test_where_capturing_fails_everything_is_eager_and_the_log_says_why(worker, caplog):
    """It does here: there is no GPU."""
    runner = worker.model_runner
    batches = [batch(3, np.random.default_rng(2))]
    eager = run(runner, batches)
    worker.use_graphs(64)
    runner.compilation_config.cudagraph_mode = CUDAGraphMode.FULL
    runner.cudagraph_manager = CudaGraphManager(runner.vllm_config, runner.device, CUDAGraphMode.FULL, 1)
    runner.graphs = Graphs(runner.cudagraph_manager, runner.buffers, PAGES, 128, runner._prepare)
    assert runner.capture_model() == 0
    assert "passes run eagerly: capturing them failed: " in caplog.text
    assert runner.compilation_config.cudagraph_mode == CUDAGraphMode.NONE
    assert runner.graphs.choose(batches[0]) is None
    np.testing.assert_array_equal(run(runner, batches)[0], eager[0])
    runner.cudagraph_manager.replays = 0


def test_there_is_room_for_the_schedule_of_every_line(loaded, monkeypatch):
    """In the buffer that FlashAttention 3's builder has for them, if it is too small; CPU attention's has none."""
    groups = loaded.runner.attn_groups
    make_room(groups, 30)
    builder = groups[0][0].get_metadata_builder(0)
    assert not hasattr(builder, "scheduler_metadata")
    monkeypatch.setattr(builder, "scheduler_metadata", torch.zeros(1 + 4 * 8, dtype=torch.int32), raising=False)
    for lines, room in ((8, 33), (5, 33), (30, 1 + 4 * 32), (9, 1 + 4 * 32)):
        make_room(groups, lines)
        assert builder.scheduler_metadata.shape == (room,) and builder.scheduler_metadata.dtype == torch.int32


def test_padding_is_in_no_request_and_in_no_slot():
    rng = np.random.default_rng(3)
    buffers = StepBuffers(Shape(64, REQUESTS, PAGES), PAGE, torch.device("cpu"))
    buffers.device.fill_(255)  # what steps before have left
    step = batch(3, rng, most=10)
    tokens = len(step.positions)
    inputs = buffers.fill(step, Shape(40, 6, PAGES))
    exact = buffers.fill(step)
    assert exact.shape == (tokens, 3, PAGES)
    inputs = buffers.fill(step, Shape(40, 6, PAGES), longest=(40, 128))
    arrays = inputs.device
    assert arrays.positions.tolist() == [*step.positions, *[0] * (40 - tokens)]
    assert arrays.token_ids.tolist() == [*step.token_ids, *[0] * (40 - tokens)]
    of = np.repeat(np.arange(3), np.diff(step.query_starts))
    slots = step.block_table[of, step.positions // PAGE] * PAGE + step.positions % PAGE
    assert arrays.slots.tolist() == [*slots, *[-1] * (40 - tokens)]
    assert arrays.query_starts.tolist() == [*step.query_starts, tokens, tokens, tokens]
    assert arrays.ends.tolist() == [*step.ends, 0, 0, 0]
    assert arrays.block_table.tolist() == [*step.block_table.tolist(), *[[0] * PAGES] * 3]
    assert (inputs.longest_query, inputs.longest_canvas) == (40, 128), "what it is told, as of a graph"
    assert exact.longest_query == np.diff(step.query_starts).max() and exact.longest_canvas == max(step.ends)
    # at the same addresses each time
    again = buffers.fill(batch(2, rng, most=10), Shape(40, 6, PAGES)).device
    assert [a.data_ptr() for a in again] == [a.data_ptr() for a in arrays]


@pytest.mark.parametrize(
    ("eager", "asked", "mode", "sizes"),
    [
        (False, {}, CUDAGraphMode.FULL, engine_config.graph_sizes(256)),
        (True, {}, None, None),
        (False, {"cudagraph_mode": CUDAGraphMode.NONE}, CUDAGraphMode.NONE, None),
        (False, {"cudagraph_capture_sizes": [32, 64]}, CUDAGraphMode.FULL, [32, 64]),
        (False, {"max_cudagraph_capture_size": 100}, CUDAGraphMode.FULL, engine_config.graph_sizes(100)),
    ],
)
def test_what_a_gpu_is_told(loaded, monkeypatch, eager, asked, mode, sizes):
    monkeypatch.setattr(
        engine_config, "current_platform", SimpleNamespace(is_cpu=lambda: False, is_cuda_alike=lambda: True)
    )
    config = deepcopy(loaded.config)
    compilation = config.compilation_config
    config.model_config.enforce_eager = eager
    compilation.cudagraph_mode = compilation.cudagraph_capture_sizes = compilation.max_cudagraph_capture_size = None
    for name, value in asked.items():
        setattr(compilation, name, value)
    engine_config.set_graphs(config)
    assert (compilation.cudagraph_mode, compilation.cudagraph_capture_sizes) == (mode, sizes)
    assert config.model_config.enforce_eager == (mode != CUDAGraphMode.FULL)
