"""Dream (arXiv:2508.15487): Dream-org/Dream-v0-Base-7B, -Instruct-7B, Dream-Coder, DiffuCoder."""

from vllm_dllm.models.dream.checks import check
from vllm_dllm.models.dream.config import DreamConfig
from vllm_dllm.models.dream.tokenizer import DreamTokenizer
from vllm_dllm.models.family import Family

DREAM = Family(
    name="Dream",
    architectures=("DreamModel",),
    model="vllm_dllm.models.dream.model:DreamModel",
    config=DreamConfig,
    check=check,
    row_shift=-1,
    sampler="categorical",
    steps="dream",
    end_of_turn="<|im_end|>",
    masks="times",
    tokenizer=DreamTokenizer,
    foreign=dict.fromkeys(("expand_token_id", "delete_token_id", "<|expand|>", "<|delete|>"), "DreamOn"),
)
