"""The names of LLaDA2.0's weights, which are Ling 2.0's, as Llama's. Quantisers' lists also have them without what stands
in front."""

NAMES = {
    r"(^|\.)word_embeddings\b": r"\1embed_tokens",
    r"(^|\.)attention\.query_key_value\b": r"\1self_attn.qkv_proj",
    r"(^|\.)attention\.query_layernorm\b": r"\1self_attn.q_norm",
    r"(^|\.)attention\.key_layernorm\b": r"\1self_attn.k_norm",
    r"(^|\.)attention\.dense\b": r"\1self_attn.o_proj",
    r"\.mlp\.gate\.expert_bias$": ".mlp.expert_bias",
}
