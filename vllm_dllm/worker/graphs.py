"""The forward of a partial pass as CUDA graphs: one for each of a few numbers of tokens, replayed with padding.

vLLM's own manager captures, chooses and replays (it knows tensor parallelism, sleep mode and offloading); what is here
is what a graph is captured of: the forward over the arrays of a shape of `StepBuffers`, from the embedding to the last
norm. It serves any mix of query lengths, for attention gets the requests' bounds from these arrays.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.logger import init_logger
from vllm.utils.gc_utils import freeze_gc_for_cudagraph_capture
from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.worker.gpu.attn_utils import AttentionCGSupportInfo
from vllm.v1.worker.gpu.cudagraph_utils import BatchExecutionDescriptor, CudaGraphManager

from vllm_dllm.messages import Batch
from vllm_dllm.worker.buffers import Inputs, Shape, StepBuffers

logger = init_logger(f"vllm.{__name__}")

Forward = Callable[[], torch.Tensor]  # hidden states [tokens, hidden size] of the inputs it was made for


def graph_mode(config: VllmConfig, support: AttentionCGSupportInfo) -> CUDAGraphMode:
    """FULL where graphs are wanted and the attention backend's kernels can be captured for any mix of query lengths;
    FULL_DECODE_ONLY where only for batches whose requests have equally many queries."""
    mode = config.compilation_config.cudagraph_mode
    if not mode or support.min_cg_support == AttentionCGSupport.ALWAYS:
        return CUDAGraphMode.FULL if mode else CUDAGraphMode.NONE
    if support.min_cg_support == AttentionCGSupport.UNIFORM_BATCH:
        logger.info(
            "CUDA graphs for steps whose requests all compute one block: the attention backend %s has no others",
            support.min_cg_attn_backend,
        )
        mode = CUDAGraphMode.FULL_DECODE_ONLY
    else:
        logger.warning(
            "No CUDA graphs, passes run eagerly: the attention backend %s has them for some batches only (%s)",
            support.min_cg_attn_backend,
            support.min_cg_support,
        )
        mode = CUDAGraphMode.NONE
    config.compilation_config.cudagraph_mode = mode
    return mode


def give_up(config: VllmConfig, why: Exception) -> None:
    """Capturing failed: graphs only save time, so passes run eagerly, and the log says why."""
    logger.warning("No CUDA graphs, passes run eagerly: capturing them failed: %s: %s", type(why).__name__, why)
    config.compilation_config.cudagraph_mode = CUDAGraphMode.NONE


class Graphs:
    """The graphs of `manager` over `buffers`; none until they are captured, or where its mode is NONE.

    `pages` is how many a request has at most, `longest` how many positions a canvas has. `prepare` builds the attention's metadata for inputs, and returns their
    forward.
    """

    def __init__(
        self,
        manager: CudaGraphManager,
        buffers: StepBuffers,
        pages: int,
        longest: int,
        prepare: Callable[[Inputs, bool], Forward],
    ):
        self.manager = manager
        self.buffers = buffers
        self.pages = pages
        self.longest = longest
        self.prepare = prepare
        self.hidden: torch.Tensor | None = None  # what the forwards give, [most tokens captured, hidden size]
        self.prepared: tuple[Any, ...] | None = None  # what the attention's metadata was made for last

    def choose(self, batch: Batch) -> BatchExecutionDescriptor | None:
        """The smallest graph that holds the batch, or None: it runs eagerly."""
        if self.hidden is None or batch.placed:  # there are none; a graph begins with tokens
            return None
        counts = np.diff(batch.query_starts)
        uniform = int(counts[0]) if (counts == counts[0]).all() else None
        found = self.manager.dispatch(
            len(batch.ends), len(batch.positions), uniform_token_count=uniform, num_active_loras=0
        )
        return found if found.cg_mode == CUDAGraphMode.FULL else None

    def shape(self, graph: BatchExecutionDescriptor) -> Shape:
        assert graph.num_reqs is not None  # full graphs have a number of requests
        return Shape(graph.num_tokens, graph.num_reqs, self.pages)

    def _fill(self, batch: Batch, graph: BatchExecutionDescriptor) -> Inputs:
        # a graph holds for all queries and canvases that there can be
        query = graph.uniform_token_count or min(graph.num_tokens, self.longest)
        return self.buffers.fill(batch, self.shape(graph), (query, self.longest))

    def run(self, batch: Batch, graph: BatchExecutionDescriptor) -> torch.Tensor:
        """Hidden states of the batch, and behind them those of the padding: good until the next run."""
        inputs = self._fill(batch, graph)
        # the metadata of this very step: FlashAttention keeps its schedule in a buffer of its own, which the graph reads.
        # A request that goes on in its block has the schedule that it had
        bounds = (batch.query_starts, batch.ends, batch.block_table)
        made_for = (graph, *(array.tobytes() for array in bounds))
        if made_for != self.prepared:
            self.prepare(inputs, False)
            self.prepared = made_for
        self.manager.run_fullgraph(graph)
        assert self.hidden is not None
        return self.hidden[: graph.num_tokens]

    def capture_measured(self, quiet: bool) -> int:
        """Captures every graph; bytes of device memory that this took, 0 where there are none to capture."""
        if not self.manager.needs_capture():
            return 0
        start = time.perf_counter()
        with freeze_gc_for_cudagraph_capture():
            torch.accelerator.empty_cache()
            free, _ = torch.accelerator.get_memory_info()
            self.capture()
            taken = free - torch.accelerator.get_memory_info()[0]
        if not quiet:
            sizes, seconds = self.manager.captured_token_counts(), time.perf_counter() - start
            logger.info(
                "CUDA graphs: %d captured in %.1f s, for steps of up to %d tokens; %.2f GiB",
                *(len(sizes), seconds, sizes[-1], taken / 2**30),
            )
        return taken

    def capture(self) -> None:
        """Captures every graph."""
        self.manager.capture(self._forward_of)

    def release(self) -> None:
        """From now on everything runs eagerly."""
        self.manager.release_graphs()
        self.hidden = None

    def _forward_of(self, graph: BatchExecutionDescriptor, warmup: bool) -> Callable[[CUDAGraphMode], None]:
        """What is captured, prepared outside the graph. vLLM runs it once before (`warmup`)."""
        inputs = self._fill(_any_batch(self.shape(graph)), graph)
        inputs.device.slots.fill_(-1)  # no page is written
        forward = self.prepare(inputs, True)

        def run(_: CUDAGraphMode) -> None:
            hidden = forward()
            if self.hidden is None:  # the largest comes first
                self.hidden = torch.empty_like(hidden)
            self.hidden[: len(hidden)] = hidden

        return run


def _any_batch(shape: Shape) -> Batch:
    """A batch of that shape, on page 0, which belongs to nobody."""
    starts = (np.arange(shape.requests + 1) * shape.tokens // shape.requests).astype(np.int32)
    nothing = np.zeros(shape.tokens, np.int32)
    return Batch(
        positions=nothing,
        token_ids=nothing,
        query_starts=starts,
        ends=np.diff(starts),
        block_table=np.zeros((shape.requests, shape.pages), np.int32),
        places=nothing[:0],
        read_starts=starts * 0,
        readouts=[],
    )
