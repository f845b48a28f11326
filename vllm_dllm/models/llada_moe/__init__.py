"""LLaDA-MoE (arXiv:2509.24389): inclusionAI/LLaDA-MoE-7B-A1B-Base, -Instruct."""

from vllm_dllm.models.family import Family
from vllm_dllm.models.llada_moe.checks import check
from vllm_dllm.models.llada_moe.config import LLaDAMoEConfig

LLADA_MOE = Family(
    name="LLaDA-MoE",
    architectures=("LLaDAMoEModelLM",),
    model="vllm_dllm.models.llada_moe.model:LLaDAMoEModelLM",
    config=LLaDAMoEConfig,
    check=check,
    row_shift=0,
    sampler="gumbel",
    steps="llada",
    end_of_turn="<|role_end|>",
    other_types=("llada",),
    mask_token_id=156895,
)
