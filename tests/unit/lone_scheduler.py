"""A scheduler without an engine: its configuration and its pages."""

from common import CHECKPOINTS
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.structured_output import StructuredOutputManager

import vllm_dllm

PAGES, PAGE = 64, 32


def config_of(model: str, **options) -> VllmConfig:
    """Of a bundled checkpoint's engine."""
    vllm_dllm.register()
    return EngineArgs(model=str(CHECKPOINTS / model), dtype="float32", **options).create_engine_config()


def scheduler_of(config: VllmConfig):
    from vllm_dllm.metrics import StepCounts
    from vllm_dllm.scheduler import DllmScheduler

    config.cache_config.num_gpu_blocks = PAGES
    spec = FullAttentionSpec(block_size=PAGE, num_kv_heads=4, head_size=32, dtype=config.model_config.dtype)
    caches = KVCacheConfig(PAGES, [], [KVCacheGroupSpec(["layer"], spec)])
    scheduler = DllmScheduler(config, caches, StructuredOutputManager(config), block_size=PAGE)
    scheduler.listeners.counts = StepCounts()  # which no statistics take along
    return scheduler
