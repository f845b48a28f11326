"""The model families that are served, in vLLM's parallel layers, with their configs and tokenizers.

`register()` makes them known to transformers and vLLM, so that no remote code is needed.
"""

from vllm_dllm.models import config_json
from vllm_dllm.models.dream import DREAM
from vllm_dllm.models.family import Family
from vllm_dllm.models.illada import ILLADA
from vllm_dllm.models.llada import LLADA
from vllm_dllm.models.llada2_moe import LLADA2_MOE
from vllm_dllm.models.llada_moe import LLADA_MOE
from vllm_dllm.models.llada_v import LLADA_V
from vllm_dllm.models.sdar import SDAR
from vllm_dllm.models.sdar_moe import SDAR_MOE

FAMILIES = (LLADA, DREAM, LLADA_MOE, ILLADA, LLADA_V, SDAR, SDAR_MOE, LLADA2_MOE)
# architecture in config.json -> the family that serves it
ARCHITECTURES = {architecture: family for family in FAMILIES for architecture in family.architectures}


def is_ours(model_config) -> bool:
    """Whether vLLM's `ModelConfig` is of a model that this package serves."""
    return model_config is not None and model_config.architecture in ARCHITECTURES


def family_of(model_config) -> Family:
    """The family of a model that is ours."""
    return ARCHITECTURES[model_config.architecture]


def register() -> None:
    """Register configs, tokenizers and architectures. May be called more than once."""
    from transformers import AutoConfig
    from transformers.models.auto.tokenization_auto import REGISTERED_TOKENIZER_CLASSES
    from vllm.model_executor.models import ModelRegistry
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from vllm_dllm.models import cpu_norms

        cpu_norms.register()
    config_json.register(ARCHITECTURES)
    for family in FAMILIES:
        # for tokenizers, which ask for a config by its type alone
        AutoConfig.register(family.config.model_type, family.config, exist_ok=True)
        if family.tokenizer is not None:
            # by name alone: AutoTokenizer.register would also tie it to the config, and transformers then prefers
            # the checkpoint's own, slow class when trust_remote_code is set
            REGISTERED_TOKENIZER_CLASSES[family.tokenizer.__name__] = family.tokenizer
        for architecture in family.architectures:
            ModelRegistry.register_model(architecture, family.model)
