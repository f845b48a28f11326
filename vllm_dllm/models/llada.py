"""LLaDA (arXiv:2502.09992): a Llama without a causal mask, under OLMo's weight names."""

import re
from functools import partial

import torch
from torch import nn
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.models.llama import LlamaAttention, LlamaDecoderLayer
from vllm.model_executor.models.utils import WeightsMapper

from vllm_dllm.models.llama import BidirectionalLlama

BLOCK = r"^model\.transformer\.blocks\.(\d+)\."
# `ff_out` is a block's down projection and, outside the blocks, the output head
NAMES = {
    BLOCK + "attn_norm": r"model.layers.\1.input_layernorm",
    BLOCK + "ff_norm": r"model.layers.\1.post_attention_layernorm",
    BLOCK + "(q|k|v)_proj": r"model.layers.\1.self_attn.\2_proj",
    BLOCK + "attn_out": r"model.layers.\1.self_attn.o_proj",
    BLOCK + "ff_proj": r"model.layers.\1.mlp.gate_proj",
    BLOCK + "up_proj": r"model.layers.\1.mlp.up_proj",
    BLOCK + "ff_out": r"model.layers.\1.mlp.down_proj",
    r"^model\.transformer\.wte": "model.embed_tokens",
    r"^model\.transformer\.ln_f": "model.norm",
    r"^model\.transformer\.ff_out": "lm_head",
}


class FullPrecisionRope(nn.Module):
    """Rotary embedding of query and key in float32, whatever their dtype (`rope_full_precision`)."""

    def __init__(self, rope: nn.Module):
        super().__init__()
        self.rope = rope

    def forward(
        self, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        q, k = self.rope(positions, query.float(), key.float())
        return q.to(query.dtype), k.to(key.dtype)


class LLaDAAttention(LlamaAttention):
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
