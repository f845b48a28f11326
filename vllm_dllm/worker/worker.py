"""vLLM's worker for this platform, with the diffusion model runner in it."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn
from vllm.platforms import current_platform
from vllm.utils.gc_utils import freeze_gc_heap, maybe_attach_gc_debug_callback
from vllm.utils.gpu_sync_debug import enable_gpu_sync_check
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker.worker_base import CompilationTimes

from vllm_dllm.attention import choice
from vllm_dllm.patches import cpu_attention, shared_memory
from vllm_dllm.worker.freed_memory import keep_freed_memory
from vllm_dllm.worker.model_runner import DllmModelRunner

if TYPE_CHECKING or not current_platform.is_cpu():
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker
else:
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker


class DllmWorker(PlatformWorker):
    """Owns weights and caches; told by the scheduler what to compute."""

    def init_device(self) -> None:
        self.use_v2_model_runner = False  # vLLM's own second runner, whose methods ours does not have
        shared_memory.apply()
        choice.register()  # `--attention-backend CUSTOM`
        cpu_attention.apply()
        # oneDNN (CPU) compiles a kernel for each number of rows, of which passes have many, and would keep 1,024
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
        if current_platform.is_cpu():
            keep_freed_memory()
        super().init_device()
        # the CPU worker builds its runner inside init_device, without a hook to say which
        if not isinstance(self.model_runner, DllmModelRunner):
            self.model_runner = self._make_model_runner()

    def _make_model_runner(self) -> DllmModelRunner:
        return DllmModelRunner(self.vllm_config, self.device)

    def determine_available_memory(self) -> int:
        """What is left for KV pages beside the hidden-state cache, if there is one."""
        return int(super().determine_available_memory() * (1 - self.model_runner.hidden_share()))

    # ---- what changes the weights without the model's `load_weights`, or takes away what the pages held ----

    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        self.model_runner.model.weights += 1
        super().reload_weights(*args, **kwargs)

    def reset_weights(self) -> None:
        self.model_runner.model.weights += 1
        super().reset_weights()

    def update_weights(self, update_info: dict | list[dict]) -> None:
        self.model_runner.model.weights += 1
        super().update_weights(update_info)

    def finish_weight_update(self) -> None:
        self.model_runner.model.weights += 1
        super().finish_weight_update()

    def apply_model(self, fn: Callable[[nn.Module], Any]) -> Any:
        self.model_runner.model.weights += 1  # whoever is given the model may write into it
        return super().apply_model(fn)

    def wake_up(self, tags: list[str] | None = None) -> None:
        super().wake_up(tags)
        self.model_runner.model.weights += 1
        if tags is None or "kv_cache" in tags:
            self.model_runner.clear_pages()

    # ---- start ----

    def compile_or_warm_up_model(self) -> CompilationTimes:
        # profile_run has compiled what there is to compile, and warmed up the kernels
        self.model_runner.warm_up_kernels()
        self.model_runner.capture_model()
        set_random_seed(self.model_config.seed)
        freeze_gc_heap()  # what lives as long as the engine is not looked through again and again
        maybe_attach_gc_debug_callback()
        enable_gpu_sync_check()  # VLLM_GPU_SYNC_CHECK, from the first request on
        return CompilationTimes(language_model=0.0, encoder=0.0)
