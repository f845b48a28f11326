"""iLLaDA (arXiv:2606.25331): a Llama without a causal mask."""

import torch
from torch import nn
from vllm.config import VllmConfig

from vllm_dllm.models.llama import BidirectionalLlama


class LayerNorm(nn.LayerNorm):
    """PyTorch's, called as vLLM calls its norms: with a residual it is of the sum, and gives that too."""

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if residual is None:
            return super().forward(x)
        total = x + residual
        return super().forward(total), total


class ILLaDAForCausalLM(BidirectionalLlama):
    """Architecture `ILLaDAForCausalLM`: GSAI-ML/iLLaDA-8B-Base, -Instruct."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config = self.config
        if config.layer_norm_eps is None:
            return
        self.model.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        for layer in self.model.layers:
            layer.input_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            layer.post_attention_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
