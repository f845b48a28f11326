"""LLaDA (arXiv:2502.09992): GSAI-ML/LLaDA-8B-Base, -Instruct, LLaDA-1.5."""

from vllm_dllm.models.family import Family
from vllm_dllm.models.llada.checks import check
from vllm_dllm.models.llada.config import LLaDAConfig

LLADA = Family(
    name="LLaDA",
    architectures=("LLaDAModelLM",),
    model="vllm_dllm.models.llada.model:LLaDAModelLM",
    config=LLaDAConfig,
    check=check,
    row_shift=0,
    sampler="gumbel",
    steps="llada",
    end_of_turn="<|eot_id|>",
    foreign=dict.fromkeys(("llm_vocab_size", "codebook_size", "num_vq_tokens"), "MMaDA") | {"num_experts": "LLaDA-MoE"},
)
