"""Refuses, by name, the checkpoints of diffusion models that are not served, before vLLM asks for remote code.

vLLM's and transformers' own words for them ("pass trust_remote_code=True") help nobody: remote code would be decoded
from left to right, if it ran.
"""

from collections.abc import Mapping
from typing import Any

from vllm.model_executor.models import ModelRegistry

from vllm_dllm.models.checks import model_type_refusal
from vllm_dllm.models.family import Family
from vllm_dllm.options import SettingError

# architecture in config.json -> what it is called
KNOWN = {
    "DreamVLModel": "Dream-VL",
    "Fast_dLLM_QwenForCausalLM": "Fast-dLLM v2",
    "LlavaLladaForMaskedDiffusion": "LaViDa",
    "MMadaModelLM": "MMaDA",
    "RND1LM": "RND1",
    "WeDLMForCausalLM": "WeDLM",
}


def refuse_unserved(options: Mapping[str, Any], families: Mapping[str, Family]) -> None:
    """Raise SettingError if `options`, a config.json, is of a known model that is not served, or of one that bears
    another family's name. `families`: by architecture."""
    architectures = options.get("architectures") or []
    for architecture in architectures:
        # another plugin may serve what we do not
        if architecture in KNOWN and architecture not in ModelRegistry.models:
            served = ", ".join(f"{family.name} ({name})" for name, family in families.items())
            raise SettingError(
                f"architectures={architectures!r} in the model's config.json is not allowed: {KNOWN[architecture]} is a "
                f"diffusion model that vllm-dllm does not serve yet; it serves {served}"
            )
        family = families.get(architecture)
        if family is not None and not family.has_type(options.get("model_type")):
            raise model_type_refusal(options.get("model_type"), family)
