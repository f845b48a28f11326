"""The config of the official iLLaDA checkpoints, under the names vLLM reads, which are Llama's.

What a value means for us, honoured or refused, is in checks.py.
"""

from vllm_dllm.models.base_config import BaseConfig


class ILLaDAConfig(BaseConfig):
    """`config.json` of GSAI-ML/iLLaDA-8B. Its mask token is named there by nobody."""

    model_type = "illada"

    vocab_size: int = 155136
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 8192
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    layer_norm_eps: float | None = None  # where it is set, norms are LayerNorms
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = True
    mask_token_id: int | None = None
    bos_token_id: int | None = 0
    pad_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
