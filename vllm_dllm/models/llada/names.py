"""The names of LLaDA's weights, which are OLMo's, as Llama's."""

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
