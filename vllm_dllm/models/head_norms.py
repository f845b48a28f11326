"""Attention with norms of every head's query and key (Qwen3's, and LLaDA-MoE's)."""

import torch
from vllm.model_executor.layers.layernorm import RMSNorm

from vllm_dllm.models.llama import BidirectionalAttention


class HeadNormAttention(BidirectionalAttention):
    """RMS norms over each head's dimensions, one weight for all queries and one for all keys, before the rotation."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.q_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def before_rotation(self, q, k, v):
        return self._normed(self.q_norm, q), self._normed(self.k_norm, k), v

    def _normed(self, norm: RMSNorm, heads: torch.Tensor) -> torch.Tensor:
        return norm(heads.unflatten(-1, (-1, self.head_dim))).flatten(-2)
