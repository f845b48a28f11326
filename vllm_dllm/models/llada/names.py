"""The names of LLaDA's weights, which are OLMo's, as Llama's. Quantisers' lists also have them without what stands in
front."""

MODEL = r"^(?:model\.)?transformer\."
BLOCK = MODEL + r"blocks\.(\d+)\."
# `ff_out` is a block's down projection and, outside the blocks, the output head
NAMES = {
    BLOCK + "attn_norm": r"model.layers.\1.input_layernorm",
    BLOCK + "ff_norm": r"model.layers.\1.post_attention_layernorm",
    BLOCK + "(q|k|v)_proj": r"model.layers.\1.self_attn.\2_proj",
    BLOCK + "attn_out": r"model.layers.\1.self_attn.o_proj",
    BLOCK + "ff_proj": r"model.layers.\1.mlp.gate_proj",
    BLOCK + "up_proj": r"model.layers.\1.mlp.up_proj",
    BLOCK + "ff_out": r"model.layers.\1.mlp.down_proj",
    MODEL + "wte": "model.embed_tokens",
    MODEL + "ln_f": "model.norm",
    MODEL + "ff_out": "lm_head",
    # of every block: GPTQ's `modules_in_block_to_quantize`
    "^attn_out$": "self_attn.o_proj",
    "^ff_proj$": "mlp.gate_proj",
    "^ff_out$": "mlp.down_proj",
}
