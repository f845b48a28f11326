"""The config of the official SDAR-MoE checkpoints, under the names vLLM reads, which are Qwen3-MoE's.

Fields carry the default of Qwen3-MoE's config class. What a value means for us, honoured or refused, is in checks.py.
"""

from vllm_dllm.models.base_config import BaseConfig


class SDARMoeConfig(BaseConfig):
    """`config.json` of JetLM/SDAR-30B-A3B. Older ones name neither block size nor mask token."""

    model_type = "sdar_moe"

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 4
    head_dim: int | None = None
    max_position_embeddings: int = 32768
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None
    decoder_sparse_step: int = 1  # every so many layers one has experts
    mlp_only_layers: list[int] | None = None  # layers that have none, whatever the step
    moe_intermediate_size: int = 768
    num_experts: int = 128
    num_experts_per_tok: int = 8
    norm_topk_prob: bool = False
    block_size: int = 4
    mask_token_id: int | None = None
    eos_token_id: int | list[int] | None = 151643

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.mlp_only_layers is None:
            self.mlp_only_layers = []

    def is_sparse(self, layer: int) -> bool:
        return layer not in (self.mlp_only_layers or ()) and (layer + 1) % self.decoder_sparse_step == 0

    @property
    def columns(self) -> list[str]:
        """The options that say how wide its MLPs are."""
        dense = not all(map(self.is_sparse, range(self.num_hidden_layers)))
        return ["moe_intermediate_size"] + (["intermediate_size"] if dense else [])
