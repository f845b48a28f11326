"""LLaDA and Dream in vLLM's parallel layers, with their configs and tokenizers.

`register()` makes them known to transformers and vLLM, so that no remote code is needed.
"""

# architecture in config.json -> the class that serves it, imported when it is needed
ARCHITECTURES = {
    "LLaDAModelLM": "vllm_dllm.models.llada:LLaDAModelLM",
    "DreamModel": "vllm_dllm.models.dream:DreamModel",
}


def is_ours(model_config) -> bool:
    """Whether vLLM's `ModelConfig` is of a model that this package serves."""
    return model_config is not None and model_config.architecture in ARCHITECTURES


def register() -> None:
    """Register configs, tokenizers and architectures. May be called more than once."""
    from transformers import AutoConfig
    from vllm.model_executor.models import ModelRegistry
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    from vllm_dllm.models import tokenizers
    from vllm_dllm.models.configs import CONFIGS

    for config in CONFIGS:
        _CONFIG_REGISTRY[config.model_type] = config
        AutoConfig.register(config.model_type, config, exist_ok=True)
    tokenizers.register()
    for architecture, path in ARCHITECTURES.items():
        ModelRegistry.register_model(architecture, path)
