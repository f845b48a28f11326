"""SDAR (arXiv:2510.06303): JetLM/SDAR-1.7B-Chat, -4B-Chat, -8B-Chat. TraDo (arXiv:2509.06949) is the same."""

from vllm_dllm.models.family import Family
from vllm_dllm.models.sdar.checks import check
from vllm_dllm.models.sdar.config import SDARConfig

SDAR = Family(
    name="SDAR",
    architectures=("SDARForCausalLM",),
    model="vllm_dllm.models.sdar.model:SDARForCausalLM",
    config=SDARConfig,
    check=check,
    row_shift=0,
    sampler="categorical",
    steps="llada",
    end_of_turn="<|im_end|>",
    mask_token_id=151669,
    attention="blocks",
    dynamic_threshold=0.85,
)
