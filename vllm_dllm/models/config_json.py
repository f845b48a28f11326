"""Which class reads a checkpoint's `config.json`: by its architecture, for a `model_type` may be another family's too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig
from vllm.transformers_utils import config as vllm_config
from vllm.transformers_utils.config import HFConfigParser

from vllm_dllm.models.family import Family

FORMAT = "hf"  # vLLM's word for config.json


class FamilyConfigParser(HFConfigParser):
    """vLLM's reader of config.json, but for the families' architectures, which their own classes read."""

    families: Mapping[str, Family] = {}  # by architecture

    def parse(
        self,
        model: str | Path,
        trust_remote_code: bool,
        revision: str | None = None,
        code_revision: str | None = None,
        **kwargs: Any,
    ) -> tuple[dict, PretrainedConfig]:
        options, _ = PretrainedConfig.get_config_dict(model, revision=revision, code_revision=code_revision, **kwargs)
        overrides = kwargs.get("hf_overrides")
        asked = options | overrides if isinstance(overrides, dict) else options
        family = next((self.families[a] for a in asked.get("architectures") or [] if a in self.families), None)
        if family is None:
            return super().parse(model, trust_remote_code, revision, code_revision, **kwargs)
        read = {key: value for key, value in options.items() if key != "model_type"}
        return options, family.config.from_dict(read, name_or_path=str(model))


def register(families: Mapping[str, Family]) -> None:
    """May be called more than once."""
    FamilyConfigParser.families = families
    vllm_config._CONFIG_FORMAT_TO_CONFIG_PARSER[FORMAT] = FamilyConfigParser
