"""The config of the official LLaDA checkpoints, under the names vLLM reads.

Fields carry the default that the authors' own config class gives an option which `config.json` leaves out.
What a value means for us, honoured or refused, is in checks.py.
"""

from vllm_dllm.models.base_config import BaseConfig


class LLaDAConfig(BaseConfig):
    """`config.json` of GSAI-ML/LLaDA-8B (OLMo's option names).

    `n_kv_heads`, `mlp_hidden_size` and `vocab_size` hold what they come to, whichever option says it.
    """

    model_type = "llada"
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
    }

    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    n_kv_heads: int | None = None
    multi_query_attention: bool | None = None
    mlp_hidden_size: int | None = None
    mlp_ratio: int = 4
    max_sequence_length: int = 1024
    vocab_size: int = 50257
    embedding_size: int | None = None  # theirs is 50304, the padded vocabulary of GPT-2, whatever vocab_size is
    mask_token_id: int | None = None
    weight_tying: bool = True
    block_type: str = "sequential"
    block_group_size: int = 1
    activation_type: str = "swiglu"
    layer_norm_type: str = "default"
    layer_norm_with_affine: bool = True
    bias_for_layer_norm: bool | None = None
    attention_layer_norm: bool = False
    input_emb_norm: bool = False
    rms_norm_eps: float = 1e-5
    include_bias: bool = False
    include_qkv_bias: bool = False
    clip_qkv: float | None = None
    alibi: bool = False
    rope: bool = False
    rope_full_precision: bool = True
    rope_theta: float = 10000.0
    scale_logits: bool = False

    def __post_init__(self, **kwargs):
        if self.n_kv_heads is None and self.multi_query_attention:
            self.n_kv_heads = 1
        super().__post_init__(**kwargs)
        if self.mlp_hidden_size is None:
            self.mlp_hidden_size = self.mlp_ratio * self.d_model
        if self.embedding_size is None:
            self.embedding_size = self.vocab_size
        self.vocab_size = max(self.vocab_size, self.embedding_size)  # rows of the embedding, columns of the logits

    @property
    def qkv_bias(self) -> bool:
        return self.include_bias or self.include_qkv_bias

    @property
    def head_bias(self) -> bool:
        return self.include_bias and not self.weight_tying

    @property
    def logit_scale(self) -> float:
        return self.d_model**-0.5 if self.scale_logits else 1.0
