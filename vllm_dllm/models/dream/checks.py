"""What a Dream checkpoint's `config.json` may ask for, as modeling_dream.py reads it."""

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_rope, check_sizes, require

# option -> the value that the layers are right for
OPTIONS = {
    "hidden_act": "silu",
    "use_sliding_window": False,
    "use_mrope": False,
    "attention_bias": False,  # q, k and v always have a bias, the output projection never
    "mlp_bias": False,
}


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    require(hf, OPTIONS)
    check_rope(hf)
    check_sizes(hf)
