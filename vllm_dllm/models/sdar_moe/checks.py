"""What an SDAR-MoE checkpoint's `config.json` may ask for, as modeling_sdar_moe.py (Qwen3-MoE's) reads it."""

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_experts, refusal
from vllm_dllm.models.sdar.checks import check as check_sdar


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    check_sdar(hf)
    if hf.decoder_sparse_step < 1:
        raise refusal("decoder_sparse_step", hf.decoder_sparse_step, "at least 1")
    check_experts(hf)
