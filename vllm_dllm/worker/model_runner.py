"""Runs partial passes: any positions of any canvases, over vLLM's paged KV cache."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from vllm.config import VllmConfig
from vllm.forward_context import set_forward_context
from vllm.logger import init_logger
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.reload.inplace import reload_weights
from vllm.model_executor.offloader import create_offloader, get_offloader, set_offloader
from vllm.utils.mem_utils import DeviceMemoryProfiler
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput
from vllm.v1.worker.gpu.attn_utils import (
    build_attn_metadata,
    build_slot_mappings_by_layer,
    get_kv_cache_spec,
    init_attn_backend,
    init_kv_cache,
)
from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager, profile_cudagraph_memory
from vllm.v1.worker.utils import clear_layer_kv_caches
from vllm.v1.worker.workspace import lock_workspace

from vllm_dllm.messages import Batch, Edits, Guidance, Placed, Readout
from vllm_dllm.models import family_of
from vllm_dllm.probes.worker import at_the_end, worker_half
from vllm_dllm.vllm_messages import BLOCK, HIDDEN_CACHE, LOOKS, PROBE, DllmSchedulerOutput
from vllm_dllm.worker.buffers import Inputs, Shape, StepBuffers, rounded
from vllm_dllm.worker.graphs import Forward, Graphs, give_up, graph_mode
from vllm_dllm.worker.images import ImageEmbeddings
from vllm_dllm.worker.launched import Launched
from vllm_dllm.worker.layerwise import LayerwiseForward
from vllm_dllm.worker.looks import Queries
from vllm_dllm.worker.readout import CHUNK, LINES, Nothing, Reader, Reading
from vllm_dllm.worker.schedules import make_room
from vllm_dllm.worker.unused_calls import UnusedCalls

logger = init_logger(f"vllm.{__name__}")


class DllmModelRunner(UnusedCalls):
    """Holds the weights and the KV cache, and computes what a `Batch` says.

    It keeps nothing about a request from one pass to the next but the keys and values in its pages, and the embeddings of
    its images, as long as the scheduler says.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device):
        self.vllm_config = vllm_config
        self.compilation_config = vllm_config.compilation_config
        self.cache_config = vllm_config.cache_config
        self.device = device
        self.max_tokens = vllm_config.scheduler_config.max_num_batched_tokens
        self.max_num_reqs = vllm_config.scheduler_config.max_num_seqs
        self.kv_caches: dict[str, Any] = {}
        self.launched: Launched | None = None  # the step whose output vLLM has not asked for
        model = vllm_config.model_config
        self.reader = Reader(family_of(model).sampler, model.hf_config.mask_token_id, device, model.get_vocab_size())

    # ---- what vLLM's worker asks of a runner ----

    def load_model(self, load_dummy_weights: bool = False) -> None:
        config = self.vllm_config
        if load_dummy_weights:
            config.load_config.load_format = "dummy"
        set_offloader(create_offloader(config.offload_config))
        with DeviceMemoryProfiler(self.device) as used:
            self.model = get_model_loader(config.load_config).load_model(
                vllm_config=config, model_config=config.model_config
            )
        self.images = ImageEmbeddings(self.model, self.device)
        get_offloader().post_init()
        self.model_memory_usage = used.consumed_memory

    @property
    def _num_layers(self) -> int:
        return self.vllm_config.model_config.hf_config.num_hidden_layers

    @property
    def _hidden_size(self) -> int:
        return self.vllm_config.model_config.hf_config.hidden_size

    @property
    def _keeps_hidden(self) -> bool:
        return self.vllm_config.additional_config[HIDDEN_CACHE]

    @property
    def _takes_images(self) -> bool:
        return self.vllm_config.model_config.supports_multimodal_inputs

    def hidden_share(self) -> float:
        """The part of the KV cache's memory that hidden states take: a KV slot's inputs of every layer, where they are
        kept, and its embedding, where it may be an image's."""
        kv = sum(spec.page_size_bytes / spec.block_size for spec in self.get_kv_cache_spec().values())
        states = (self._num_layers if self._keeps_hidden else 0) + (1 if self._takes_images else 0)
        hidden = states * self._hidden_size * self.vllm_config.model_config.dtype.itemsize
        return hidden / (kv + hidden)

    def get_model(self) -> torch.nn.Module:
        return self.model

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",) if self.layerwise.unreadable else ("generate", LOOKS)

    def get_kv_cache_spec(self) -> dict[str, KVCacheSpec]:
        return get_kv_cache_spec(self.vllm_config)

    def initialize_kv_cache(
        self,
        kv_cache_config: KVCacheConfig,
        is_profiling: bool = False,
        kv_cache_allocation_context: AbstractContextManager | None = None,
    ) -> None:
        config = self.vllm_config
        self.kv_cache_config = kv_cache_config
        self.attn_groups, graph_support, kernel_block_sizes = init_attn_backend(kv_cache_config, config, self.device)
        (group,) = kv_cache_config.kv_cache_groups  # every layer attends alike
        self.page_size = group.kv_cache_spec.block_size
        if kernel_block_sizes != [self.page_size]:
            raise ValueError(
                f"block_size={self.page_size} is not allowed: the attention backend reads pages of "
                f"{kernel_block_sizes[0]} tokens; set --block-size {kernel_block_sizes[0]}"
            )
        longest = config.model_config.max_model_len
        pages = -(-longest // self.page_size)
        # lines: one for each request or, where attention is causal by blocks, for each block, of one position or more
        lines = self.max_num_reqs if family_of(config.model_config).attention == "full" else self.max_tokens
        make_room(self.attn_groups, lines)
        most = Shape(self.max_tokens, lines, pages)
        self.buffers = StepBuffers(most, self.page_size, self.device)
        mode = graph_mode(config, graph_support)
        block = config.additional_config.get(BLOCK, 1)
        self.cudagraph_manager = CudaGraphManager(config, self.device, mode, decode_query_len=block)
        self.graphs = Graphs(self.cudagraph_manager, self.buffers, pages, longest, self._prepare)
        self.looked: Graphs | None = None  # of passes that a probe looks into
        probe = config.additional_config.get(PROBE)
        if probe is not None and worker_half(probe).at_the_end and not is_profiling:
            self.queries = Queries(self.model)
            manager = CudaGraphManager(config, self.device, mode, decode_query_len=block)
            self.looked = Graphs(manager, self.buffers, pages, longest, self._prepare_looked)
        self.hidden_cache = None
        with kv_cache_allocation_context or nullcontext():  # what sleep mode gives back
            if self._keeps_hidden and not is_profiling:
                self.hidden_cache = torch.zeros(
                    (self._num_layers, kv_cache_config.num_blocks * self.page_size, self._hidden_size),
                    dtype=config.model_config.dtype,
                    device=self.device,
                )
            self.kv_caches = init_kv_cache(
                config.compilation_config.static_forward_context,
                kv_cache_config,
                self.device,
                kernel_block_sizes,
                config,
            )
        if not is_profiling:
            self.layerwise = LayerwiseForward(
                self.model, self.page_size, self.device, self._forward_context, self.hidden_cache, self.images
            )
            if self.layerwise.unreadable:
                logger.warning("%s. Requests for one are refused.", self.layerwise.unreadable)

    def clear_pages(self) -> None:
        """Zero all pages: after sleep their memory is another, and may hold what is no number."""
        for cache in (*self.kv_caches.values(), self.hidden_cache):
            if cache is not None:
                cache.zero_()

    @torch.inference_mode()
    def profile_run(self, randomize_inputs: bool = False) -> None:
        """The largest step there can be, without a KV cache, so that vLLM sees the memory it takes.

        As many rows are read as a step reads at once, the first chunk of them drawn, which takes most.
        """
        if self._takes_images and self.device.type != "cpu":  # there nothing is measured
            self.images.profile(self.vllm_config)
        attention = self.model.model.layers[0].self_attn
        # every layer's queries, which a probe may keep until the pass is done
        kept = torch.empty(
            (self._num_layers, self.max_tokens, attention.q_size),
            dtype=self.vllm_config.model_config.dtype,
            device=self.device,
        )
        rows = self._dummy_run(self.max_tokens)[:LINES]
        del kept
        draws = Readout(temperature=1.0, top_p=0.9, margin=True, entropy=True, confidence64=True)
        readouts = [draws, Readout(margin=True, entropy=True)]
        self._read(rows, np.asarray([0, min(CHUNK, len(rows)), len(rows)]), readouts)
        self._read(rows[:1], np.asarray([0, 1]), [Readout()])  # the kernel without float64

    warming_up_model = profile_run  # what vLLM's CPU worker calls it

    @torch.inference_mode()
    def _dummy_run(self, num_tokens: int, **_: Any) -> torch.Tensor:
        """A forward of so many tokens without a KV cache, as of a rank that has nothing to do. Its hidden states."""
        # of the types that passes have: torch.compile traces the model here
        ids = torch.zeros(num_tokens, dtype=torch.int32, device=self.device)
        positions = torch.zeros(num_tokens, dtype=torch.int64, device=self.device)
        with set_forward_context(None, self.vllm_config, num_tokens=num_tokens):
            return self.model(ids, positions)

    def profile_cudagraph_memory(self) -> int:
        """Bytes that the graphs will take: two are captured over a KV cache of a few pages, and thrown away."""
        try:
            return profile_cudagraph_memory(self)
        except Exception as why:
            give_up(self.vllm_config, why)
            return 0
        finally:
            for name in ("graphs", "buffers"):  # vLLM has taken the other attributes away
                vars(self).pop(name, None)

    @torch.inference_mode()
    def warm_up_kernels(self) -> None:
        """Has the kernels compiled that the profile run has not: those of probes."""
        if not self.layerwise.unreadable:
            self.layerwise.warm_up()

    def capture_model(self, profile_only: bool = False) -> int:
        """Captures the CUDA graphs, if there are to be any; bytes that they take."""
        try:
            taken = self.graphs.capture_measured(quiet=profile_only)
            if self.looked is not None:
                taken += self.looked.capture_measured(quiet=profile_only)
        except Exception as why:
            give_up(self.vllm_config, why)
            for graphs in (self.graphs, self.looked):
                if graphs is not None:
                    graphs.release()
            return 0
        if taken and not profile_only:
            lock_workspace()  # which the graphs have the address of
        return taken

    def execute_model(
        self, scheduler_output: SchedulerOutput, intermediate_tensors: None = None
    ) -> ModelRunnerOutput | None:
        if not scheduler_output.total_num_scheduled_tokens:
            return EMPTY_MODEL_RUNNER_OUTPUT
        assert isinstance(scheduler_output, DllmSchedulerOutput)
        launched = self.run(scheduler_output.batch, list(scheduler_output.num_scheduled_tokens))
        if not scheduler_output.queued:
            return launched.get_output()
        self.launched = launched
        return None

    def sample_tokens(self, grammar_output: None) -> Launched | None:
        """The output of the step just launched, which may be on its way; None if there is none, because it failed."""
        launched, self.launched = self.launched, None
        return launched

    def reload_weights(
        self,
        weights_iterator: Iterable[tuple[str, torch.Tensor]] | None = None,
        weights_path: str | None = None,
        is_checkpoint_format: bool = True,
    ) -> None:
        """Other weights in place of the model's: from the iterator, the path, or the last path once more."""
        reload_weights(self.vllm_config, self.model, weights_iterator, weights_path, is_checkpoint_format)

    def reset_encoder_cache(self) -> None:
        """Forget the embeddings of images. The scheduler, which is told first, sends those that are needed again."""
        self.images.clear()

    def shutdown(self) -> None:
        clear_layer_kv_caches(self.vllm_config.compilation_config.static_forward_context.values())
        self.kv_caches.clear()

    # ---- the pass ----

    @torch.inference_mode()
    def run(self, batch: Batch, req_ids: list[str]) -> Launched:
        """One step, launched: forward at the query positions, read at the places.

        Every layer writes the keys and values of the query positions into their pages, then attends to
        the whole canvas.
        """
        if batch.wipe:
            pages = self._to_device(np.asarray(batch.wipe, np.int64))
            for cache in self.kv_caches.values():
                cache[pages] = 0
        self.images.update(batch)
        places, signals, layer_tokens = batch.places, {}, {}
        graphs = self.graphs if not batch.probes else self.looked if at_the_end(batch.probes.values()) else None
        graph = None if graphs is None else graphs.choose(batch)
        if graphs is not None and graph is not None:
            hidden = graphs.run(batch, graph)
            if batch.probes:
                signals = self.layerwise.look(batch, self.queries.of(len(batch.positions)))
        elif batch.probes:
            hidden, places, signals, layer_tokens = self.layerwise(batch)
        else:
            hidden = self._eager(batch)
        self._update_tables(batch)
        if len(places) < len(hidden):  # they are ascending: else it is all of them
            hidden = hidden.index_select(0, self._to_device(places))
        reading = self._read(hidden, batch.read_starts, batch.readouts, batch.edits, batch.guidance, batch.named)
        return Launched(req_ids, reading, self.model.weights, signals, layer_tokens)

    def _update_tables(self, batch: Batch) -> None:
        """The classes of tokens that formats admit by stay on the device from step to step."""
        for key, table in batch.tables.items():
            self.reader.tables[key] = self._to_device(table)
        for key in batch.dropped:
            del self.reader.tables[key]

    def _read(
        self,
        rows: torch.Tensor,
        read_starts: np.ndarray,
        readouts: list[Readout],
        edits: Mapping[int, Edits] | None = None,
        guidance: Mapping[int, Guidance] | None = None,
        named: Mapping[int, np.ndarray] | None = None,
    ) -> Reading | Nothing | None:
        """Hidden states [N, hidden size] through the output head, as many at once as there is room for their logits."""
        return self.reader.start(
            lambda lines: self.model.compute_logits(rows[lines]), read_starts, readouts, edits, guidance, named
        )

    def _eager(self, batch: Batch) -> torch.Tensor:
        """Hidden states of the batch, and on a CPU of some padding behind them."""
        padded = None
        if self.device.type == "cpu":
            own = Shape.of(batch)
            padded = own._replace(tokens=min(rounded(own.tokens), self.max_tokens))
        return self._prepare(self.buffers.fill(batch, padded), placed=batch.placed)()

    def _prepare(self, inputs: Inputs, for_capture: bool = False, placed: Sequence[Placed] = ()) -> Forward:
        """The forward of these inputs, which may be called again once they were filled with others of the same shape."""
        metadata = self._attention_metadata(inputs, for_capture)
        embeddings = self.images.inputs(inputs.device.token_ids, placed) if placed else None

        def forward() -> torch.Tensor:
            with self._context(inputs, metadata):
                return self.model(inputs.device.token_ids, inputs.device.positions, embeddings)

        return forward

    def _prepare_looked(self, inputs: Inputs, for_capture: bool = False) -> Forward:
        """The same, with every layer's queries written down."""
        return self.queries.written_by(self._prepare(inputs, for_capture))

    def _forward_context(self, batch: Batch) -> AbstractContextManager:
        """vLLM's context for a forward at the batch's query positions."""
        inputs = self.buffers.fill(batch)
        return self._context(inputs, self._attention_metadata(inputs))

    def _context(self, inputs: Inputs, metadata: dict[str, Any]) -> AbstractContextManager:
        return set_forward_context(
            metadata,
            self.vllm_config,
            num_tokens=inputs.shape.tokens,
            slot_mapping=build_slot_mappings_by_layer(inputs.device.slots[None], self.kv_cache_config),
        )

    def _attention_metadata(self, inputs: Inputs, for_capture: bool = False) -> dict[str, Any]:
        arrays = inputs.device
        for graphs in (self.graphs, self.looked):  # whatever the backend keeps of the last step's is another's now
            if graphs is not None:
                graphs.prepared = None
        return build_attn_metadata(
            attn_groups=self.attn_groups,
            num_reqs=inputs.shape.requests,
            num_tokens=inputs.shape.tokens,
            query_start_loc_gpu=arrays.query_starts,
            query_start_loc_cpu=inputs.query_starts,
            max_query_len=inputs.longest_query,
            seq_lens=arrays.ends,
            max_seq_len=inputs.longest_canvas,
            # exact; without it some backends copy the lengths back from the device, and wait for it
            seq_lens_cpu_upper_bound=inputs.ends,
            block_tables=[arrays.block_table],
            slot_mappings=arrays.slots[None],
            kv_cache_config=self.kv_cache_config,
            for_cudagraph_capture=for_capture,
            causal=False,
        )

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        return async_tensor_h2d(array, self.device)
