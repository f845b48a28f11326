"""LLaDA2.0 (arXiv:2512.15745): inclusionAI/LLaDA2.0-mini, -flash."""

from vllm_dllm.models.family import Family
from vllm_dllm.models.llada2_moe.checks import check
from vllm_dllm.models.llada2_moe.config import LLaDA2MoeConfig

LLADA2_MOE = Family(
    name="LLaDA2.0",
    architectures=("LLaDA2MoeModelLM",),
    model="vllm_dllm.models.llada2_moe.model:LLaDA2MoeModelLM",
    config=LLaDA2MoeConfig,
    check=check,
    row_shift=0,
    sampler="categorical",
    steps="llada",
    end_of_turn="<|role_end|>",
    mask_token_id=156895,
    attention="blocks",
    dynamic_threshold=0.95,
    foreign={"image_token_offset": "LLaDA2.0-Uni"},
)
