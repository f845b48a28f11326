"""vllm-dllm: a vLLM plugin that serves full-sequence diffusion language models (LLaDA, Dream)."""

__version__ = "0.2.0"


def register() -> None:
    """The plugin's entry point (`vllm.general_plugins`): called in every process, perhaps more than once."""
    from vllm_dllm.vllm_version import check_vllm

    check_vllm()
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from vllm_dllm import models
    from vllm_dllm.engine_config import DllmConfig
    from vllm_dllm.patches import (
        admission,
        auto_dtype,
        command_line,
        foreign_checkpoints,
        generation_defaults,
        integrity,
        server,
        waiting_steps,
    )

    models.register()
    for architecture in models.ARCHITECTURES:
        MODELS_CONFIG_MAP[architecture] = DllmConfig
    # harmless for other models
    for patch in (
        admission,
        auto_dtype,
        command_line,
        foreign_checkpoints,
        generation_defaults,
        integrity,
        server,
        waiting_steps,
    ):
        patch.apply()
