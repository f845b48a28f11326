"""What an SDAR-MoE checkpoint's `config.json` may ask for, as modeling_sdar_moe.py (Qwen3-MoE's) reads it."""

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_blocks, check_heads, check_rope, refusal, require

# option -> the value that the layers are right for
OPTIONS = {"hidden_act": "silu", "use_sliding_window": False}


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    require(hf, OPTIONS)
    check_rope(hf)
    check_heads(hf)
    check_blocks(hf)
    if hf.decoder_sparse_step < 1:
        raise refusal("decoder_sparse_step", hf.decoder_sparse_step, "at least 1")
    if not 1 <= hf.num_experts_per_tok <= hf.num_experts:
        raise refusal("num_experts_per_tok", hf.num_experts_per_tok, f"from 1 to num_experts={hf.num_experts}")
