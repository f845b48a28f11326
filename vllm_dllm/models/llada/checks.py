"""What a LLaDA checkpoint's `config.json` may ask for, as modeling_llada.py reads it."""

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_rope, check_sizes, refusal, require

# option -> the value that the layers are right for
OPTIONS = {
    "block_type": "llama",
    "block_group_size": 1,  # groups give the blocks other names
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "clip_qkv": None,
    "alibi": False,
    "rope": True,
}


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    require(hf, OPTIONS)
    norm_bias = hf.include_bias if hf.bias_for_layer_norm is None else hf.bias_for_layer_norm
    if norm_bias:
        raise refusal("bias_for_layer_norm", hf.bias_for_layer_norm, f"False with include_bias={hf.include_bias}")
    check_rope(hf)
    check_sizes(hf)
    kv_heads = hf.num_key_value_heads
    if hf.multi_query_attention is not None and kv_heads != (1 if hf.multi_query_attention else hf.n_heads):
        raise refusal("multi_query_attention", hf.multi_query_attention, f"None with n_kv_heads={kv_heads}")
    if hf.embedding_size < hf.vocab_size:
        raise refusal("embedding_size", hf.embedding_size, f"at least vocab_size={hf.vocab_size}")
