"""vLLM's config hook for our architectures: what must be set so that `vllm serve MODEL` needs no flag."""

from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.model_executor.models.config import VerifyAndUpdateConfig

from vllm_dllm.config import GEN_LENGTH, ModelTraits, check_server

logger = init_logger(__name__)

PAGE_SIZE = 32  # tokens of a KV page: a multiple of 32 for vLLM's CPU attention, as small as that allows


def model_traits(config: VllmConfig) -> ModelTraits:
    hf = config.model_config.hf_config
    return ModelTraits(mask_id=hf.mask_token_id, row_shift=hf.row_shift, dream=hf.model_type == "Dream")


class DiffusionConfig(VerifyAndUpdateConfig):
    """Sets scheduler, worker and limits for a diffusion model, and refuses what cannot work with one."""

    @staticmethod
    def verify_and_update_config(vllm_config: VllmConfig) -> None:
        settings = check_server(vllm_config.additional_config, model_traits(vllm_config))
        model, scheduler = vllm_config.model_config, vllm_config.scheduler_config
        cache, parallel = vllm_config.cache_config, vllm_config.parallel_config

        scheduler.scheduler_cls = "vllm_dllm.scheduler.DiffusionScheduler"
        parallel.worker_cls = "vllm_dllm.worker.worker.DiffusionWorker"
        # the next pass hangs on what this one unmasks
        scheduler.async_scheduling = False
        # attention is bidirectional: no prefix has keys of its own, and no part of a full pass can wait
        cache.enable_prefix_caching = False
        scheduler.enable_chunked_prefill = False
        scheduler.max_num_batched_tokens = max(scheduler.max_num_batched_tokens, model.max_model_len)
        scheduler.max_num_scheduled_tokens = None
        if not cache.user_specified_block_size:
            cache.block_size = PAGE_SIZE
            cache.user_specified_block_size = True  # or the platform sets its own default
        model.enforce_eager = True

        defaults = model.override_generation_config
        defaults.setdefault("max_new_tokens", settings.get(GEN_LENGTH.key, GEN_LENGTH.default))
        # the authors' scripts decode greedily unless told otherwise
        if "temperature" not in model.try_get_generation_config():
            defaults.setdefault("temperature", 0.0)
