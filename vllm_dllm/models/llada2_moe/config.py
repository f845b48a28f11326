"""The config of the official LLaDA2.0 checkpoints, under the names vLLM reads.

Fields carry the default that the authors' own config class gives an option which `config.json` leaves out; block size
and end tokens are their `generate`'s. What a value means for us, honoured or refused, is in checks.py.
"""

from vllm_dllm.models.base_config import BaseConfig


class LLaDA2MoeConfig(BaseConfig):
    """`config.json` of inclusionAI/LLaDA2.0-mini and -flash (Ling 2.0's option names)."""

    model_type = "llada2_moe"

    vocab_size: int = 30592
    hidden_size: int = 1024
    intermediate_size: int | None = None
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = 0
    head_dim: int | None = None
    max_position_embeddings: int = 16384
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    partial_rotary_factor: float = 0.5  # of every head, its first part
    tie_word_embeddings: bool = False
    use_qkv_bias: bool = False
    use_bias: bool = True  # of the attention's output alone
    use_sliding_window: bool = False
    sliding_window: int | None = None
    first_k_dense_replace: int = 0
    moe_intermediate_size: int | None = None
    num_experts: int = 16
    num_experts_per_tok: int = 2
    num_shared_experts: int | None = 0
    n_group: int = 8
    topk_group: int = 4
    routed_scaling_factor: float = 2.5
    block_size: int = 32
    mask_token_id: int | None = None
    pad_token_id: int | None = 156892
    eos_token_id: int | list[int] | None = 156892

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads

    def is_sparse(self, layer: int) -> bool:
        return layer >= self.first_k_dense_replace

    @property
    def qkv_bias(self) -> bool:
        return self.use_qkv_bias

    @property
    def output_bias(self) -> bool:
        return self.use_bias

    @property
    def shared_width(self) -> int:
        """Columns of the MLP that every token has besides its experts, 0 where there is none."""
        return (self.num_shared_experts or 0) * (self.moe_intermediate_size or 0)

    @property
    def columns(self) -> list[str]:
        """The options that say how wide its MLPs are."""
        return ["moe_intermediate_size"] + (["intermediate_size"] if self.first_k_dense_replace else [])
