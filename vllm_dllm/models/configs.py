"""The configs of the official LLaDA and Dream checkpoints, under the names vLLM reads."""

from transformers import PretrainedConfig


class LLaDAConfig(PretrainedConfig):
    """`config.json` of GSAI-ML/LLaDA-8B (OLMo's option names)."""

    model_type = "llada"
    has_no_defaults_at_init = True  # transformers: do not build one without arguments to compare with
    attribute_map = {
        "hidden_size": "d_model",
        "intermediate_size": "mlp_hidden_size",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "max_position_embeddings": "max_sequence_length",
        "hidden_act": "activation_type",
        "tie_word_embeddings": "weight_tying",
        "attention_bias": "include_bias",
        "mlp_bias": "include_bias",
        "qkv_bias": "include_qkv_bias",
    }

    # what a prediction's row and its sampling are called in methods.md
    row_shift = 0
    sampler = "gumbel"


class DreamConfig(PretrainedConfig):
    """`config.json` of Dream-org/Dream-v0-7B (Qwen2's option names)."""

    model_type = "Dream"
    has_no_defaults_at_init = True
    # Qwen2: query, key and value projections have a bias, the others none
    qkv_bias = True

    row_shift = -1
    sampler = "categorical"


CONFIGS = (LLaDAConfig, DreamConfig)
