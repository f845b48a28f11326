"""What an iLLaDA checkpoint's `config.json` may ask for, as modeling_illada.py reads it."""

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_rope, check_sizes, require


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    require(hf, {"hidden_act": "silu"})
    check_rope(hf)
    check_sizes(hf)
