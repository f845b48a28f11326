"""LLaDA (arXiv:2502.09992): a Llama without a causal mask, under OLMo's weight names."""

import re
from functools import partial

import torch
from torch import nn
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.models.llama import LlamaDecoderLayer
from vllm.model_executor.models.utils import WeightsMapper
from vllm.triton_utils import HAS_TRITON

from vllm_dllm.models.llada.names import NAMES
from vllm_dllm.models.llama import BidirectionalAttention, BidirectionalLlama


class FullPrecisionRope(nn.Module):
    """Rotary embedding of query and key in float32, whatever their dtype (`rope_full_precision`).

    On a GPU in place, as vLLM's own is there.
    """

    def __init__(self, rope: nn.Module):
        super().__init__()
        self.rope = rope

    def forward(
        self, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not query.is_cpu and HAS_TRITON:
            from vllm_dllm.models.llada.rope_kernel import rotate

            rotate(positions, query, key, self.rope.cos_sin_cache, self.rope.head_size)
            return query, key
        q, k = self.rope(positions, query.float(), key.float())
        return q.to(query.dtype), k.to(key.dtype)


class LLaDAAttention(BidirectionalAttention):
    def _init_rotary_emb(self, config, quant_config) -> None:
        if not config.rope_full_precision:
            return super()._init_rotary_emb(config, quant_config)
        rope = get_rope(
            self.head_dim,
            max_position=self.max_position_embeddings,
            rope_parameters=config.rope_parameters,
            dtype=torch.float32,
        )
        self.rotary_emb = FullPrecisionRope(rope)


class LLaDAModelLM(BidirectionalLlama):
    """Architecture `LLaDAModelLM`: GSAI-ML/LLaDA-8B-Base, -Instruct, LLaDA-1.5."""

    hf_to_vllm_mapper = (
        WeightsMapper(orig_to_new_regex={re.compile(k): v for k, v in NAMES.items()})
        | BidirectionalLlama.hf_to_vllm_mapper
    )
    layer_type = staticmethod(partial(LlamaDecoderLayer, attn_layer_type=LLaDAAttention))
