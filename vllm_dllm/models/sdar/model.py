"""SDAR (arXiv:2510.06303): Qwen3, whose attention is causal by blocks because the model runner's lines say so."""

from functools import partial

from vllm.model_executor.models.llama import LlamaDecoderLayer

from vllm_dllm.models.head_norms import HeadNormAttention
from vllm_dllm.models.llama import BidirectionalLlama


class SDARForCausalLM(BidirectionalLlama):
    """Architecture `SDARForCausalLM`: JetLM/SDAR-1.7B-Chat, -4B-Chat, -8B-Chat, Gen-Verse/TraDo-4B-Instruct, ..."""

    layer_type = staticmethod(partial(LlamaDecoderLayer, attn_layer_type=HeadNormAttention))
