"""What an SDAR checkpoint's `config.json` may ask for, as modeling_sdar.py reads it."""

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_blocks, check_heads, check_rope, require

# option -> the value that the layers are right for
OPTIONS = {"hidden_act": "silu", "use_sliding_window": False}


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    require(hf, OPTIONS)
    check_rope(hf)
    check_heads(hf)
    check_blocks(hf)
