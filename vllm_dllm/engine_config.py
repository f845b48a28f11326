"""vLLM's config hook for our architectures: what must be set so that `vllm serve MODEL` needs no flag."""

import functools
import json
import os
from typing import Any

from vllm import envs
from vllm.config import CompilationMode, CUDAGraphMode, ModelConfig, ParallelConfig, VllmConfig
from vllm.logger import init_logger
from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.platforms import current_platform
from vllm.utils.cpu_resource_utils import get_visible_memory_node

from vllm_dllm.attention import choice as attention
from vllm_dllm.caching.pages import PAGE_SIZE
from vllm_dllm.catalogue import GEN_LENGTH, HIDDEN_CACHE, OVERLAP, WATCH
from vllm_dllm.machine import check_machine
from vllm_dllm.models import cpu_norms, family_of
from vllm_dllm.models.checks import check as check_checkpoint
from vllm_dllm.models.generation import check_override
from vllm_dllm.models.generation import defaults as checkpoint_defaults
from vllm_dllm.options import SettingError
from vllm_dllm.patches import owner, quick_start
from vllm_dllm.settings import ModelTraits, ServerSettings, given
from vllm_dllm.vllm_messages import BLOCK, PROBE
from vllm_dllm.vllm_version import note_vllm
from vllm_dllm.watch import address

logger = init_logger(f"vllm.{__name__}")  # below vLLM's logger, whose handler prints it

BIND, THREADS = "VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS"
# how long a thread without work keeps its core busy: half a millisecond, in place of GNU OpenMP's 15, in which those
# who wait for the core (the front end, a thread of the same engine) would wait on
SPINS = "GOMP_SPINCOUNT"
_SHARED: dict[str, str] = {}  # what `share` has put into the environment


def model_traits(config: VllmConfig) -> ModelTraits:
    return traits_of(config.model_config)


def traits_of(model: ModelConfig) -> ModelTraits:
    family = family_of(model)
    return ModelTraits(
        model.hf_config.mask_token_id,
        family.row_shift,
        family.steps,
        family.drop_behind_end,
        family.steps_rank_by,
        model.hf_config.block_size if family.attention == "blocks" else None,
        family.dynamic_threshold,
    )


def server_settings(config: VllmConfig) -> ServerSettings:
    """The settings of an engine that has been configured, the same object each time."""
    return _server_settings(json.dumps(given(config.additional_config), sort_keys=True), model_traits(config))


@functools.lru_cache(maxsize=8)
def _server_settings(settings: str, traits: ModelTraits) -> ServerSettings:
    return ServerSettings(json.loads(settings), traits)


class DllmConfig(VerifyAndUpdateConfig):
    """Sets scheduler, worker and limits for a diffusion model, and refuses what cannot work with one."""

    @staticmethod
    def verify_and_update_config(vllm_config: VllmConfig) -> None:
        note_vllm()
        check_checkpoint(vllm_config, family_of(vllm_config.model_config))
        settings = ServerSettings(vllm_config.additional_config, model_traits(vllm_config))
        refuse_features(vllm_config)
        check_machine(settings.given, vllm_config.model_config.max_model_len)
        set_engine(vllm_config)
        attention.check(vllm_config)
        set_overlap(vllm_config, settings.value(OVERLAP))
        set_executor(vllm_config)
        set_defaults(vllm_config, settings)
        # for the worker, which does not know what a policy needs
        probe = settings.defaults.policy.probe_class
        for_worker = {
            HIDDEN_CACHE.key: settings.hidden_cache,
            BLOCK: settings.defaults.block_length,
            PROBE: probe and probe.worker,
        }
        vllm_config.additional_config = vllm_config.additional_config | for_worker
        if settings.value(WATCH):
            address.choose()
        # this process is about to start others
        owner.apply()
        quick_start.apply()


def refuse_features(config: VllmConfig) -> None:
    """Raise SettingError, by name, for engine features that a diffusion model cannot use or that are not built."""
    model, parallel, scheduler = config.model_config, config.parallel_config, config.scheduler_config
    refused: list[tuple[str, Any, Any]] = [  # option, its value, what is allowed
        ("runner", model.runner_type, "generate"),
        ("enable_lora", config.lora_config is not None, False),
        ("speculative_config", config.speculative_config, None),
        ("diffusion_config", config.diffusion_config, None),
        ("kv_transfer_config", config.kv_transfer_config, None),
        ("ec_transfer_config", config.ec_transfer_config, None),
        ("watermark_config", config.watermark_config, None),
        ("pipeline_parallel_size", parallel.pipeline_parallel_size, 1),
        ("decode_context_parallel_size", parallel.decode_context_parallel_size, 1),
        ("prefill_context_parallel_size", parallel.prefill_context_parallel_size, 1),
        ("enable_dbo", parallel.enable_dbo, False),
        ("enable_return_routed_experts", config.aux_output_config.enabled, False),  # records go out in their place
        ("logits_processors", model.logits_processors or None, None),
        ("logprobs_mode", model.logprobs_mode, "raw_logprobs"),
        ("scheduler_cls", scheduler.scheduler_cls, None),
        ("worker_cls", parallel.worker_cls, "auto"),
    ]
    if (images := model.multimodal_config) is not None:
        refused += [
            ("enable_mm_embeds", images.enable_mm_embeds, False),
            ("mm_encoder_only", images.mm_encoder_only, False),
            ("mm_processor_kwargs", images.mm_processor_kwargs, None),
            ("mm_processor_cache_type", images.mm_processor_cache_type, "lru"),
            ("mm_encoder_tp_mode", images.mm_encoder_tp_mode, "weights"),
        ]
    if current_platform.is_cpu():
        # vLLM has no kernels for them here, and says nothing
        refused.append(("VLLM_BATCH_INVARIANT", int(envs.VLLM_BATCH_INVARIANT), 0))
        refused.append(("enable_expert_parallel", parallel.enable_expert_parallel, False))
    for name, value, allowed in refused:
        if value != allowed:
            raise SettingError(f"{name}={value!r} is not allowed with a diffusion model: it must be {allowed!r}")


def set_engine(config: VllmConfig) -> None:
    """Our scheduler and worker, and the limits that follow from bidirectional attention."""
    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    scheduler.scheduler_cls = "vllm_dllm.scheduler.DllmScheduler"
    config.parallel_config.worker_cls = "vllm_dllm.worker.worker.DllmWorker"
    if family_of(model).attention == "full":
        cache.enable_prefix_caching = False  # a prefix has no keys of its own: they depend on what follows
        scheduler.enable_chunked_prefill = False  # nor can part of a full pass wait
    if scheduler.max_num_batched_tokens < model.max_model_len and not scheduler.enable_chunked_prefill:
        logger.info("max_num_batched_tokens is raised to %d: a step must hold one full pass", model.max_model_len)
        scheduler.max_num_batched_tokens = model.max_model_len
    scheduler.max_num_scheduled_tokens = None
    if not cache.user_specified_block_size:
        cache.block_size = PAGE_SIZE
        cache.user_specified_block_size = True  # or the platform puts its own default in
    config.attention_config.use_non_causal = True  # some GPUs' first choice of attention backend is for causal models
    set_graphs(config)


def set_overlap(config: VllmConfig, choice: str) -> None:
    """What vLLM calls async scheduling: two steps in flight. On CPU its platform has the last word here, and
    `allow_overlap` in the scheduler."""
    if not current_platform.is_cpu():
        config.scheduler_config.async_scheduling = choice != "off" and overlaps(config)


def overlaps(config: VllmConfig) -> bool:
    """Whether the executor comes back before a step is computed."""
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    executor = Executor.get_class(config)
    return executor is MultiprocExecutor if current_platform.is_cpu() else executor.supports_async_scheduling()


def allow_overlap(config: VllmConfig, choice: str) -> str:
    """`dllm_overlap` as it is with this executor. Called before vLLM's engine core makes its queue of steps, of two or one.

    Raises SettingError for `on` where there is no overlap.
    """
    if choice == "on" and not overlaps(config):
        raise SettingError(
            f"{OVERLAP.key}='on' is not allowed with distributed_executor_backend="
            f"{config.parallel_config.distributed_executor_backend!r}, which computes a step before it comes back: it must "
            "be auto or off"
        )
    config.scheduler_config.async_scheduling = choice != "off" and overlaps(config)
    return choice if config.scheduler_config.async_scheduling else "off"


def set_graphs(config: VllmConfig) -> None:
    """On a GPU: whole passes as CUDA graphs, unless the user says eager. No torch.compile: the kernels are eager's.

    Beyond 512 tokens the GPU's own time hides the launches, and the padding would cost more than they save.
    On CPU: eagerly, or with torch.compile where the user asks for it.
    """
    model, compilation = config.model_config, config.compilation_config
    if current_platform.is_cpu() and not model.enforce_eager and compilation.mode == CompilationMode.VLLM_COMPILE:
        compilation.cudagraph_mode = CUDAGraphMode.NONE
        return  # vLLM's CPU platform makes it one trace of the layers, compiled by Inductor
    if current_platform.is_cpu():
        cpu_norms.choose(config)
    compilation.mode = CompilationMode.NONE
    if not current_platform.is_cuda_alike() or compilation.cudagraph_mode == CUDAGraphMode.NONE:
        model.enforce_eager = True
    if model.enforce_eager:
        return
    compilation.cudagraph_mode = CUDAGraphMode.FULL
    if compilation.cudagraph_capture_sizes is None:
        most = min(compilation.max_cudagraph_capture_size or 512, config.scheduler_config.max_num_batched_tokens)
        compilation.cudagraph_capture_sizes = graph_sizes(most)
        compilation.max_cudagraph_capture_size = most


def graph_sizes(most: int) -> list[int]:
    """Numbers of tokens to capture graphs for, up to `most`; beyond 64 less than a quarter of them is padding."""
    steps = [(8, 64, 8), (64, 128, 16), (128, 256, 32), (256, 512, 64), (512, most, 512)]
    sizes = [1, 2, 4, *(size for start, stop, step in steps for size in range(start, stop, step))]
    return [size for size in sizes if size < most] + [most]


def set_executor(config: VllmConfig) -> None:
    """On a CPU machine: Ray, which vLLM's CPU platform does not know; threads for several ranks; one process for one."""
    if not current_platform.is_cpu():
        return
    parallel = config.parallel_config
    if parallel.distributed_executor_backend == "ray":
        from vllm_dllm.patches import ray_cpu  # imports Ray

        ray_cpu.use(config)
        return
    share_cores(parallel)
    # vLLM's word for one rank where nobody named an executor, which its CPU platform would make `mp`
    if parallel.distributed_executor_backend == "uni" and envs.VLLM_ENABLE_V1_MULTIPROCESSING:
        parallel.distributed_executor_backend = "vllm_dllm.worker.one_process.OneProcessExecutor"
        share(SPINS, "10000")


def share_cores(parallel: ParallelConfig) -> None:
    """Have the ranks of this machine share its cores, unless the environment says which takes which.

    vLLM gives each rank a NUMA node's cores, and fails where there are more ranks than nodes; told `nobind`, it leaves
    all cores to each of them.
    """
    for name, value in _SHARED.items():  # of an earlier engine of this process
        if os.environ.get(name) == value:
            del os.environ[name]
    _SHARED.clear()
    ranks = parallel.local_world_size * parallel.data_parallel_size_local
    if ranks > len(get_visible_memory_node()):
        share(BIND, "nobind")
    if ranks > 1 and os.environ.get(BIND) == "nobind" and THREADS not in os.environ:
        share(THREADS, str(max(1, len(os.sched_getaffinity(0)) // ranks)))
        logger.info("%d ranks share this machine's cores: %s threads each", ranks, _SHARED[THREADS])


def share(name: str, value: str) -> None:
    """Put a variable into the environment, which the engine's process inherits and reads, unless the user has."""
    if name not in os.environ:
        os.environ[name] = _SHARED[name] = value


def set_defaults(config: VllmConfig, settings: ServerSettings) -> None:
    """What a request gets that names no length and no temperature."""
    model = config.model_config
    check_override(model.override_generation_config)
    checkpoints, lines = checkpoint_defaults(model)
    for line in lines:
        logger.warning("%s", line)
    model.override_generation_config["max_new_tokens"] = settings.value(GEN_LENGTH)
    # greedy, as the authors' scripts are, unless the checkpoint says otherwise
    if "temperature" not in checkpoints:
        model.override_generation_config.setdefault("temperature", 0.0)
