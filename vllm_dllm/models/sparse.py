"""Llama's layers with experts in place of some of their MLPs, and what the models of such layers have in common."""

import torch
from torch import nn
from transformers import PretrainedConfig
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaMLP
from vllm.model_executor.models.utils import extract_layer_index

from vllm_dllm.models.head_norms import HeadNormAttention

# Where a checkpoint's projections lie in vLLM's fused layers. Not Llama's, which would take an expert's for an MLP's.
STACKED = {
    ".q_proj": (".qkv_proj", "q"),
    ".k_proj": (".qkv_proj", "k"),
    ".v_proj": (".qkv_proj", "v"),
    ".mlp.gate_proj": (".mlp.gate_up_proj", 0),
    ".mlp.up_proj": (".mlp.gate_up_proj", 1),
}


def stacked_mlp(name: str) -> dict[str, tuple[str, int]]:
    """The same of an MLP of another name."""
    return {f".{name}.gate_proj": (f".{name}.gate_up_proj", 0), f".{name}.up_proj": (f".{name}.gate_up_proj", 1)}


class RoutedExperts(nn.Module):
    """A router (`gate`, whose logits are float32) and its `experts`, vLLM's, which a family makes as its config says.

    Which experts a token has depends on that token's router logits alone: nothing is balanced or dropped.
    """

    gate: nn.Module
    experts: nn.Module

    @staticmethod
    def mlp_beside(vllm_config: VllmConfig, width: int, prefix: str) -> LlamaMLP | None:
        """One that every token has besides, `width` wide; None if that is 0. Its sum over ranks comes with the experts'."""
        config = vllm_config.model_config.hf_config
        if not width:
            return None
        return LlamaMLP(
            config.hidden_size,
            width,
            config.hidden_act,
            vllm_config.quant_config,
            reduce_results=False,
            prefix=prefix,
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits, _ = self.gate(hidden)
        return self.experts(hidden_states=hidden, router_logits=logits)


class SparseLayer(LlamaDecoderLayer):
    """A layer with the family's attention, and its experts where its config has some.

    A config says `is_sparse(layer)`, and may have an `attention_bias`, or a `qkv_bias` and an `output_bias`.
    """

    experts_type: type[nn.Module]  # made of the vLLM config and a prefix

    def __init__(
        self,
        vllm_config: VllmConfig,
        prefix: str = "",
        config: PretrainedConfig | None = None,
        attn_layer_type: type[nn.Module] = HeadNormAttention,
    ):
        nn.Module.__init__(self)  # not Llama's, which would make a dense MLP
        config = config or vllm_config.model_config.hf_config
        bias = getattr(config, "attention_bias", False)
        self.self_attn = attn_layer_type(
            config,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            max_position_embeddings=config.max_position_embeddings,
            quant_config=vllm_config.quant_config,
            bias=getattr(config, "qkv_bias", bias),
            bias_o_proj=getattr(config, "output_bias", bias),
            cache_config=vllm_config.cache_config,
            prefix=f"{prefix}.self_attn",
        )
        if config.is_sparse(extract_layer_index(prefix)):
            self.mlp = self.experts_type(vllm_config, f"{prefix}.mlp")
        else:
            self.mlp = LlamaMLP(
                config.hidden_size,
                config.intermediate_size,
                config.hidden_act,
                vllm_config.quant_config,
                prefix=f"{prefix}.mlp",
            )
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
