"""The config of the official Dream checkpoints, under the names vLLM reads.

Fields carry the default that the authors' own config class gives an option which `config.json` leaves out.
What a value means for us, honoured or refused, is in checks.py.
"""

from vllm_dllm.models.base_config import BaseConfig


class DreamConfig(BaseConfig):
    """`config.json` of Dream-org/Dream-v0-7B (Qwen2's option names)."""

    model_type = "Dream"

    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 32
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    vocab_size: int = 151936
    mask_token_id: int | None = None  # theirs is 151666, right for one tokenizer only
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    tie_word_embeddings: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None

    # Dream's query, key and value projections have a bias, the others none, and no option of its says otherwise; this one
    # is for a Llama that was trained as Dream was (DiffuLLaMA)
    qkv_bias: bool = True
