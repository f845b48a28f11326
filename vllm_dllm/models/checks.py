"""Refuses, by name, what a checkpoint's `config.json` asks for and the engine does not do.

What the families have in common; their own options are in their folders. Options that are in neither nor in a
family's config.py change nothing at inference: dropout (`attention_dropout`, `residual_dropout`,
`embedding_dropout`), initialisation (`init_*`, `initializer_range`), `precision` (of training), `use_cache`,
`flash_attention` (vLLM chooses the kernel), and details of what is refused (`alibi_bias_max`,
`attention_layer_norm_with_affine`, `max_window_layers`).
"""

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig
from vllm.config import ModelConfig, VllmConfig
from vllm.tokenizers import cached_tokenizer_from_config

from vllm_dllm.models.family import Family
from vllm_dllm.models.generation import read_generation_config
from vllm_dllm.models.gguf import refuse_gguf
from vllm_dllm.options import SettingError


def check(config: VllmConfig, family: Family) -> None:
    """Raise SettingError for a checkpoint that the engine cannot serve as its authors' code would.

    Fills in `mask_token_id` where `config.json` has none: the tokenizer's, or the family's.
    """
    hf = config.model_config.hf_config
    refuse_gguf(config.model_config.model)
    check_model_type(hf, family)
    check_foreign(config.model_config, family)
    family.check(hf)
    check_tensor_parallel(hf, config.parallel_config.tensor_parallel_size)
    check_mask_token(config.model_config, family.mask_token_id)


def check_model_type(hf: PretrainedConfig, family: Family) -> None:
    if not isinstance(hf, family.config):
        raise model_type_refusal(hf.model_type, family)


# ---- for the families' own checks ----


def require(hf: PretrainedConfig, options: Mapping[str, Any]) -> None:
    """Raise SettingError for an option that is there and has another value."""
    for option, allowed in options.items():
        if (value := getattr(hf, option, allowed)) != allowed:
            raise refusal(option, value, repr(allowed))


def check_rope(hf: PretrainedConfig, rotated: float = 1) -> None:
    """Rotary embeddings without scaling, of the share `rotated` of every head, and full attention in every layer."""
    for option in ("rope_scaling", "rope_parameters"):  # the second is what transformers 5 saves
        rope = getattr(hf, option, None) or {}
        scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
        if scaled or rope.get("partial_rotary_factor", rotated) != rotated:
            raise refusal(option, rope, f"without scaling: rope_type 'default', partial_rotary_factor {rotated}")
    if set(getattr(hf, "layer_types", None) or ()) - {"full_attention"}:
        raise refusal("layer_types", hf.layer_types, "'full_attention' for every layer")


def check_sizes(hf: PretrainedConfig) -> None:
    width, heads = hf.hidden_size, hf.num_attention_heads
    if width % heads:
        raise refusal(name(hf, "num_attention_heads"), heads, f"a divisor of {name(hf, 'hidden_size')}={width}")
    check_heads(hf)
    if (head_size := getattr(hf, "head_dim", None)) not in (None, width // heads):
        raise refusal("head_dim", head_size, f"{width // heads}, {name(hf, 'hidden_size')} divided by the heads")


def check_heads(hf: PretrainedConfig) -> None:
    heads, kv_heads = hf.num_attention_heads, hf.num_key_value_heads
    if kv_heads < 1 or heads % kv_heads:
        allowed = f"a divisor of {name(hf, 'num_attention_heads')}={heads}"
        raise refusal(name(hf, "num_key_value_heads"), kv_heads, allowed)


def check_experts(hf: PretrainedConfig) -> None:
    if not 1 <= hf.num_experts_per_tok <= hf.num_experts:
        raise refusal("num_experts_per_tok", hf.num_experts_per_tok, f"from 1 to num_experts={hf.num_experts}")


def check_blocks(hf: PretrainedConfig) -> None:
    if hf.block_size < 1:
        raise refusal("block_size", hf.block_size, "at least 1")


# ---- for every family ----


def check_tensor_parallel(hf: PretrainedConfig, size: int) -> None:
    """Heads and feed-forward columns are cut into `size` equal parts; fewer KV heads than parts are copied.

    A config may name other columns than `intermediate_size` as its `columns`.
    """
    kv_heads = hf.num_key_value_heads
    options = ("num_attention_heads", *getattr(hf, "columns", ("intermediate_size",)))
    parts = [(name(hf, option), getattr(hf, option)) for option in options]
    if tower := getattr(hf, "vision_config", None):
        parts += [(f"vision_config.{key}", getattr(tower, key)) for key in ("num_attention_heads", "intermediate_size")]
    for option, number in parts:
        if number % size:
            raise SettingError(f"tensor_parallel_size={size} is not allowed: it must divide {option}={number}")
    if kv_heads % size and size % kv_heads:
        raise SettingError(
            f"tensor_parallel_size={size} is not allowed: it must be a divisor or a multiple of "
            f"{name(hf, 'num_key_value_heads')}={kv_heads}"
        )


def check_mask_token(model: ModelConfig, default: int | None) -> None:
    hf = model.hf_config
    if hf.mask_token_id is None:
        tokenizer = cached_tokenizer_from_config(model)
        named = tokenizer and tokenizer.mask_token_id
        hf.mask_token_id = default if named is None else named
    if hf.mask_token_id is None:
        raise refusal("mask_token_id", None, "the id of the mask token, for the tokenizer names none either")
    if not 0 <= hf.mask_token_id < hf.vocab_size:
        raise refusal("mask_token_id", hf.mask_token_id, f"from 0 to {hf.vocab_size - 1}, the ids of the embedding")


def check_foreign(model: ModelConfig, family: Family) -> None:
    """Raise SettingError for another model under one of the family's architectures."""
    generation, options = read_generation_config(model)
    tokenizer = cached_tokenizer_from_config(model)  # None where none is wanted (skip_tokenizer_init)
    vocabulary = tokenizer.get_added_vocab() if tokenizer is not None else {}
    for where, known in (
        ("config.json", vars(model.hf_config)),
        (generation, options or {}),
        ("tokenizer", vocabulary),
    ):
        for key, other in family.foreign.items():
            if known.get(key) is not None:
                raise SettingError(
                    f"{key}={known[key]!r} in the model's {where} is not allowed: it is {other}'s, which is another "
                    f"model than {family.name} and not served as {family.architectures[0]}"
                )


# ---- sentences ----


def name(hf: PretrainedConfig, option: str) -> str:
    """The option as this model's `config.json` spells it."""
    return hf.attribute_map.get(option, option)


def refusal(option: str, value: Any, allowed: str) -> SettingError:
    return SettingError(f"{option}={value!r} in the model's config.json is not allowed: it must be {allowed}")


def model_type_refusal(model_type: Any, family: Family) -> SettingError:
    types = " or ".join(repr(name) for name in (family.config.model_type, *(family.other_types or ())))
    allowed = f"{types} with the architecture {family.architectures[0]}"
    return refusal("model_type", model_type, allowed)
