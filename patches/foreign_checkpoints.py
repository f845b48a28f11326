"""Checkpoints of known models that are not served are refused as such.

What: before vLLM makes its configuration, config.json is looked at: a known diffusion model that is not served, or one of
  our architectures under a foreign model_type, is refused by name. Where vLLM cannot make a configuration and there
  are GGUF files alone, or an adapter, the error says what to do.
Why: vLLM asks for remote code that helps nobody, runs it if it may, or calls the folder invalid. Its hook, a config
  parser, is called behind other readers of config.json, twice and with a pause where it refuses, and not at all
  where there is no config.json.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: these families are served, and vLLM lets a plugin look at a checkpoint first.
"""

from typing import Any

from huggingface_hub import constants
from transformers import PretrainedConfig
from vllm.engine.arg_utils import EngineArgs

from vllm_dllm.models import ARCHITECTURES
from vllm_dllm.models.adapters import FILE, refuse_adapter
from vllm_dllm.models.gguf import refuse_gguf
from vllm_dllm.models.unserved import refuse_unserved
from vllm_dllm.patches.wrap import wrap


def _read(arguments: EngineArgs, model: str, **more: Any) -> dict[str, Any]:
    """The config.json of `model`, or another of its files; empty if it has none."""
    try:
        options, _ = PretrainedConfig.get_config_dict(
            model, token=arguments.hf_token, local_files_only=constants.HF_HUB_OFFLINE, **more
        )
    except (OSError, ValueError):  # vLLM is going to say what is wrong with it
        return {}
    return options


def _config(arguments: EngineArgs) -> dict[str, Any]:
    """The model's config.json, with what the user puts over it."""
    options = _read(arguments, arguments.hf_config_path or arguments.model, revision=arguments.revision)
    overrides = arguments.hf_overrides
    return options | overrides if isinstance(overrides, dict) else options


def _create_engine_config(original, self, usage_context=None, headless=False):
    refuse_unserved(_config(self), ARCHITECTURES)
    try:
        return original(self, usage_context, headless)
    except (OSError, ValueError):
        refuse_gguf(self.model)
        if adapter := _read(self, self.model, _configuration_file=FILE):
            base = adapter.get("base_model_name_or_path")
            refuse_adapter(self.model, adapter, _read(self, base) if base else {}, ARCHITECTURES)
        raise


def apply() -> None:
    wrap(EngineArgs, "create_engine_config", _create_engine_config)
