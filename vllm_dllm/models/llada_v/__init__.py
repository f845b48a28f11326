"""LLaDA-V (arXiv:2505.16933): GSAI-ML/LLaDA-V, LLaDA with a SigLIP2 tower in front."""

from vllm_dllm.models.family import Family
from vllm_dllm.models.llada_v.chat import conversation
from vllm_dllm.models.llada_v.checks import check
from vllm_dllm.models.llada_v.config import LLaDAVConfig

LLADA_V = Family(
    name="LLaDA-V",
    architectures=("LlavaLLaDAModelLM",),
    model="vllm_dllm.models.llada_v.model:LlavaLLaDAModelLM",
    config=LLaDAVConfig,
    check=check,
    row_shift=0,
    sampler="gumbel",
    steps="llada",
    end_of_turn="<|eot_id|>",
    mask_token_id=126336,
    ends_with_turn=True,
    drop_behind_end=True,
    steps_rank_by="confidence64",
    never=("<|endoftext|>", "<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>"),
    conversation=conversation,
)
