"""Refuses, by name, what a checkpoint's `config.json` asks for and the engine does not do.

Options that are neither here nor in configs.py change nothing at inference: dropout (`attention_dropout`,
`residual_dropout`, `embedding_dropout`), initialisation (`init_*`, `initializer_range`), `precision` (of
training), `use_cache`, `flash_attention` (vLLM chooses the kernel), and details of what is refused
(`alibi_bias_max`, `attention_layer_norm_with_affine`, `max_window_layers`).
"""

from typing import Any

from transformers import PretrainedConfig
from vllm.config import ModelConfig, VllmConfig
from vllm.tokenizers import cached_tokenizer_from_config

from vllm_dllm.options import SettingError

# option -> the value that the layers are right for, as modeling_llada.py and modeling_dream.py read it
LLADA = {
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
DREAM = {
    "hidden_act": "silu",
    "use_sliding_window": False,
    "use_mrope": False,
    "attention_bias": False,  # q, k and v always have a bias, the output projection never
    "mlp_bias": False,
}


def check(config: VllmConfig) -> None:
    """Raise SettingError for a checkpoint that the engine cannot serve as its authors' code would.

    Fills in `mask_token_id` from the tokenizer where `config.json` has none.
    """
    hf = config.model_config.hf_config
    check_options(hf)
    check_sizes(hf)
    check_tensor_parallel(hf, config.parallel_config.tensor_parallel_size)
    check_mask_token(config.model_config)


def check_options(hf: PretrainedConfig) -> None:
    for option, allowed in (LLADA if hf.model_type == "llada" else DREAM).items():
        if (value := getattr(hf, option, allowed)) != allowed:
            raise refusal(option, value, repr(allowed))
    if hf.model_type == "llada":
        norm_bias = hf.include_bias if hf.bias_for_layer_norm is None else hf.bias_for_layer_norm
        if norm_bias:
            raise refusal("bias_for_layer_norm", hf.bias_for_layer_norm, f"False with include_bias={hf.include_bias}")
    for option in ("rope_scaling", "rope_parameters"):  # the second is what transformers 5 saves
        rope = getattr(hf, option, None) or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default" or rope.get("partial_rotary_factor", 1) != 1:
            raise refusal(option, rope, "without scaling: rope_type 'default', partial_rotary_factor 1")
    if set(getattr(hf, "layer_types", None) or ()) - {"full_attention"}:
        raise refusal("layer_types", hf.layer_types, "'full_attention' for every layer")


def check_sizes(hf: PretrainedConfig) -> None:
    width, heads, kv_heads = hf.hidden_size, hf.num_attention_heads, hf.num_key_value_heads
    if width % heads:
        raise refusal(name(hf, "num_attention_heads"), heads, f"a divisor of {name(hf, 'hidden_size')}={width}")
    if heads % kv_heads:
        allowed = f"a divisor of {name(hf, 'num_attention_heads')}={heads}"
        raise refusal(name(hf, "num_key_value_heads"), kv_heads, allowed)
    if (head_size := getattr(hf, "head_dim", None)) not in (None, width // heads):
        raise refusal("head_dim", head_size, f"{width // heads}, {name(hf, 'hidden_size')} divided by the heads")
    if hf.model_type == "llada":
        if hf.multi_query_attention is not None and kv_heads != (1 if hf.multi_query_attention else heads):
            raise refusal("multi_query_attention", hf.multi_query_attention, f"None with n_kv_heads={kv_heads}")
        if hf.embedding_size < hf.vocab_size:
            raise refusal("embedding_size", hf.embedding_size, f"at least vocab_size={hf.vocab_size}")


def check_tensor_parallel(hf: PretrainedConfig, size: int) -> None:
    """Heads and feed-forward columns are cut into `size` equal parts; fewer KV heads than parts are copied."""
    kv_heads = hf.num_key_value_heads
    for option in ("num_attention_heads", "intermediate_size"):
        if getattr(hf, option) % size:
            raise SettingError(
                f"tensor_parallel_size={size} is not allowed: it must divide {name(hf, option)}={getattr(hf, option)}"
            )
    if kv_heads % size and size % kv_heads:
        raise SettingError(
            f"tensor_parallel_size={size} is not allowed: it must be a divisor or a multiple of "
            f"{name(hf, 'num_key_value_heads')}={kv_heads}"
        )


def check_mask_token(model: ModelConfig) -> None:
    hf = model.hf_config
    if hf.mask_token_id is None:
        tokenizer = cached_tokenizer_from_config(model)
        hf.mask_token_id = tokenizer and tokenizer.mask_token_id
    if hf.mask_token_id is None:
        raise refusal("mask_token_id", None, "the id of the mask token, for the tokenizer names none either")
    if not 0 <= hf.mask_token_id < hf.vocab_size:
        raise refusal("mask_token_id", hf.mask_token_id, f"from 0 to {hf.vocab_size - 1}, the ids of the embedding")


def name(hf: PretrainedConfig, option: str) -> str:
    """The option as this model's `config.json` spells it."""
    return hf.attribute_map.get(option, option)


def refusal(option: str, value: Any, allowed: str) -> SettingError:
    return SettingError(f"{option}={value!r} in the model's config.json is not allowed: it must be {allowed}")
