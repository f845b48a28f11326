"""An adapter (LoRA) of one of our models in place of a checkpoint is refused with the command that merges it."""

from collections.abc import Mapping
from typing import Any

from vllm_dllm.models.family import Family
from vllm_dllm.options import SettingError

FILE = "adapter_config.json"
MERGE = (
    "from peft import PeftModel; from transformers import AutoModel, AutoTokenizer; "
    "base = AutoModel.from_pretrained({base!r}, trust_remote_code=True, torch_dtype='auto'); "
    "PeftModel.from_pretrained(base, {adapter!r}).merge_and_unload().save_pretrained('merged'); "
    "AutoTokenizer.from_pretrained({base!r}, trust_remote_code=True).save_pretrained('merged')"
)


def refuse_adapter(
    model: str, adapter: Mapping[str, Any], base: Mapping[str, Any], families: Mapping[str, Family]
) -> None:
    """Raise SettingError if `adapter`, an adapter_config.json that `model` has, is of a model of ours: by `base`, the base
    model's config.json, or its name where that cannot be read. `families`: by architecture."""
    name = adapter.get("base_model_name_or_path") or ""
    ours = set(base.get("architectures") or ()) & set(families)
    if ours or (not base and any(family.name.lower() in name.lower() for family in families.values())):
        command = MERGE.format(base=name, adapter=model)
        raise SettingError(
            f"model={model!r} is not allowed: it is an adapter of {name}, and must be merged into that model first: "
            f'pip install peft; python -c "{command}"; vllm serve merged'
        )
