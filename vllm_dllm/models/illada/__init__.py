"""iLLaDA (arXiv:2606.25331): GSAI-ML/iLLaDA-8B-Base, -Instruct."""

from vllm_dllm.models.family import Family
from vllm_dllm.models.illada.checks import check
from vllm_dllm.models.illada.config import ILLaDAConfig

ILLADA = Family(
    name="iLLaDA",
    architectures=("ILLaDAForCausalLM",),
    model="vllm_dllm.models.illada.model:ILLaDAForCausalLM",
    config=ILLaDAConfig,
    check=check,
    row_shift=0,
    sampler="gumbel",
    steps="llada",
    end_of_turn=None,
    other_types=None,
    mask_token_id=5,
)
