"""The config of the official LLaDA-MoE checkpoints, under the names vLLM reads.

What a value means for us, honoured or refused, is in checks.py.
"""

from vllm_dllm.models.base_config import BaseConfig


class LLaDAMoEConfig(BaseConfig):
    """`config.json` of inclusionAI/LLaDA-MoE-7B-A1B, whose `model_type` is dense LLaDA's."""

    model_type = "lladamoe"
    attribute_map = {"intermediate_size": "dense_intermediate_size"}

    vocab_size: int = 157184
    hidden_size: int = 2048
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    num_key_value_heads: int | None = None
    max_position_embeddings: int = 8192
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 50000.0
    rope_scaling: dict | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    qk_layernorm: bool = True
    clip_qkv: float | None = None
    dense_intermediate_size: int = 8192
    expert_intermediate_size: int = 1024
    shared_expert_intermediate_size: int | None = None
    num_experts: int = 64
    num_experts_per_tok: int = 8
    moe_layer_freq: list[int] | None = None  # 1: a layer has experts, 0: it is dense
    moe_router_score_function: str = "softmax"
    moe_router_enable_expert_bias: bool = False
    mask_token_id: int | None = None
    pad_token_id: int | None = 156892
    eos_token_id: int | list[int] | None = 156892

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.moe_layer_freq is None:
            self.moe_layer_freq = [1] * self.num_hidden_layers

    def is_sparse(self, layer: int) -> bool:
        return self.moe_layer_freq is None or bool(self.moe_layer_freq[layer])

    @property
    def columns(self) -> list[str]:
        """The options that say how wide its MLPs are."""
        widths = ["expert_intermediate_size"]
        widths += ["dense_intermediate_size"] if 0 in (self.moe_layer_freq or ()) else []
        return widths + (["shared_expert_intermediate_size"] if self.shared_expert_intermediate_size else [])
