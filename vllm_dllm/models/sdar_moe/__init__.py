"""SDAR-MoE (arXiv:2510.06303): JetLM/SDAR-30B-A3B-Sci, SDAR-30B-A3B-Chat."""

from vllm_dllm.models.family import Family
from vllm_dllm.models.sdar_moe.checks import check
from vllm_dllm.models.sdar_moe.config import SDARMoeConfig

SDAR_MOE = Family(
    name="SDAR-MoE",
    architectures=("SDARMoeForCausalLM",),
    model="vllm_dllm.models.sdar_moe.model:SDARMoeForCausalLM",
    config=SDARMoeConfig,
    check=check,
    row_shift=0,
    sampler="categorical",
    steps="llada",
    end_of_turn="<|im_end|>",
    mask_token_id=151669,
    attention="blocks",
    dynamic_threshold=0.85,
)
