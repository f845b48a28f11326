"""CUDA graphs without a GPU: what is captured is a closure, and replaying it runs it again over the same buffers."""

import torch
from vllm.config import CUDAGraphMode
from vllm.platforms import current_platform
from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

from vllm_dllm.engine_config import graph_sizes
from vllm_dllm.worker.graphs import Graphs
from vllm_dllm.worker.looks import Queries
from vllm_dllm.worker.model_runner import DllmModelRunner


class StandIn(CudaGraphManager):
    """Chooses as vLLM's manager, which it is; only capturing and replaying are not those of a GPU."""

    replays = 0

    def capture(self, create_forward_fn, progress_bar_desc=""):
        for graph in self._capture_descs[CUDAGraphMode.FULL]:
            create_forward_fn(graph, warmup=True)(CUDAGraphMode.NONE)
            self.graphs[graph] = create_forward_fn(graph, warmup=False)
        self._graphs_captured = True

    def run_fullgraph(self, desc):
        self.replays += 1
        self.graphs[desc](CUDAGraphMode.NONE)


class WithGraphs:
    """Methods that vLLM adds to its worker (`worker_extension_cls`), called by `LLM.collective_rpc`."""

    model_runner: DllmModelRunner

    def use_graphs(self, most: int = 512, frozen: str = "", uniform: int | None = None) -> None:
        """From now on passes of up to `most` tokens are replayed. The array `frozen` is what it was at the capture.

        With `uniform`: only steps whose requests have that many queries each, as where the backend has no other graphs.
        """
        runner, compilation = self.model_runner, self.model_runner.compilation_config
        compilation.cudagraph_capture_sizes, compilation.max_cudagraph_capture_size = graph_sizes(most), most
        type(current_platform)._global_graph_pool = (0, 0)  # vLLM's CPU platform has none
        keep_schedules(runner)

        def prepare(inputs, for_capture):
            if frozen and for_capture:
                inputs.device = inputs.device._replace(**{frozen: getattr(inputs.device, frozen).clone()})
            return runner._prepare(inputs, for_capture)

        mode = CUDAGraphMode.FULL_DECODE_ONLY if uniform else CUDAGraphMode.FULL
        self._replace(StandIn, mode, prepare, uniform or 1)
        runner.queries = Queries(runner.model)
        manager = StandIn(runner.vllm_config, runner.device, mode, decode_query_len=uniform or 1)
        runner.looked = Graphs(
            manager, runner.buffers, runner.graphs.pages, runner.graphs.longest, runner._prepare_looked
        )
        with torch.inference_mode():
            runner.graphs.capture()
            runner.looked.capture()

    def use_no_graphs(self) -> tuple[int, int]:
        """How many passes were replayed, and how many that a probe looked into."""
        runner = self.model_runner
        replays = runner.cudagraph_manager.replays, runner.looked.manager.replays
        self._replace(CudaGraphManager, CUDAGraphMode.NONE, runner._prepare)
        runner.looked = None
        return replays

    def _replace(self, manager, mode, prepare, queries: int = 1) -> None:
        runner = self.model_runner
        runner.cudagraph_manager = manager(runner.vllm_config, runner.device, mode, decode_query_len=queries)
        runner.graphs = Graphs(
            runner.cudagraph_manager, runner.buffers, runner.graphs.pages, runner.graphs.longest, prepare
        )


def keep_schedules(runner: DllmModelRunner) -> None:
    """CPU attention's schedule of a step, where its graph finds it: FlashAttention's builder does that by itself."""
    builder = runner.attn_groups[0][0].get_metadata_builder(0)
    build, captured = type(builder).build, {}

    def build_for_capture(common):
        metadata = build(builder, 0, common)
        captured.setdefault((len(metadata.seq_lens), metadata.num_actual_tokens), []).append(metadata)
        return metadata

    def build_step(*arguments, **named):
        metadata = build(builder, *arguments, **named)
        for graph in captured.get((len(metadata.seq_lens), metadata.num_actual_tokens), []):
            graph.scheduler_metadata = metadata.scheduler_metadata
        return metadata

    builder.build_for_cudagraph_capture, builder.build = build_for_capture, build_step
