"""LLaDA (arXiv:2502.09992): a Llama without a causal mask, under OLMo's weight names."""

import re

from vllm.model_executor.models.llama import LlamaForCausalLM, LlamaModel
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper

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


class LLaDAModelLM(LlamaForCausalLM):
    """Architecture `LLaDAModelLM`: GSAI-ML/LLaDA-8B-Base, -Instruct, LLaDA-1.5.

    Attention is bidirectional because the model runner says so in the attention metadata;
    the layers are Llama's.
    """

    hf_to_vllm_mapper = (
        WeightsMapper(orig_to_new_regex={re.compile(k): v for k, v in NAMES.items()}) | LlamaModel.hf_to_vllm_mapper
    )

    def load_weights(self, weights):
        # names only: LlamaModel.load_weights stacks q, k, v and gate, up by itself
        names = WeightsMapper(orig_to_new_regex=self.hf_to_vllm_mapper.orig_to_new_regex)
        return AutoWeightsLoader(self).load_weights(weights, mapper=names)
