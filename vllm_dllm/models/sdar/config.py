"""The config of the official SDAR checkpoints, whose names are Qwen3's.

What a value means for us, honoured or refused, is in checks.py.
"""

from vllm_dllm.models.base_config import BaseConfig


class SDARConfig(BaseConfig):
    """`config.json` of JetLM/SDAR. Older ones name neither block size nor mask token."""

    model_type = "sdar"

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 32
    head_dim: int = 128
    max_position_embeddings: int = 32768
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None
    tie_word_embeddings: bool = False
    block_size: int = 4
    mask_token_id: int | None = None
    eos_token_id: int | list[int] | None = 151643
