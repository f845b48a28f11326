"""LLaDA-MoE (arXiv:2509.24389): a Llama without a causal mask, with norms of q and k, and experts for an MLP."""

import re
from functools import partial

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.fused_moe import FusedMoEFactory, GateLinear
from vllm.model_executor.models.utils import WeightsMapper

from vllm_dllm.models.head_norms import HeadNormAttention
from vllm_dllm.models.llama import BidirectionalLlama
from vllm_dllm.models.sparse import STACKED, RoutedExperts, SparseLayer, stacked_mlp


class LLaDAMoEAttention(HeadNormAttention):
    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.clip = config.clip_qkv

    def before_rotation(self, q, k, v):
        heads = super().before_rotation(q, k, v)
        return heads if self.clip is None else tuple(t.clamp(-self.clip, self.clip) for t in heads)


class Experts(RoutedExperts):
    """With one that every token has besides (`shared_expert_intermediate_size`)."""

    def __init__(self, vllm_config: VllmConfig, prefix: str):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.gate = GateLinear(config.hidden_size, config.num_experts, out_dtype=torch.float32, prefix=f"{prefix}.gate")
        self.expert_bias = None
        if config.moe_router_enable_expert_bias:
            self.expert_bias = nn.Parameter(torch.zeros(config.num_experts, dtype=torch.float32), requires_grad=False)
        width = config.shared_expert_intermediate_size or 0
        self.shared_expert = self.mlp_beside(vllm_config, width, f"{prefix}.shared_expert")
        self.experts = FusedMoEFactory(
            num_experts=config.num_experts,
            top_k=config.num_experts_per_tok,
            hidden_size=config.hidden_size,
            intermediate_size=config.expert_intermediate_size,
            renormalize=False,
            quant_config=vllm_config.quant_config,
            shared_experts=self.shared_expert,
            custom_routing_function=self.biased if config.moe_router_enable_expert_bias else None,
            prefix=f"{prefix}.experts",
        )

    def biased(
        self, hidden_states: torch.Tensor, gating_output: torch.Tensor, topk: int, renormalize: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and numbers of each token's experts [N, topk], from the router's logits [N, experts].

        The bias counts in the choice and in the weights.
        """
        return (gating_output.softmax(-1) + self.expert_bias).topk(topk, -1)


class LLaDAMoELayer(SparseLayer):
    experts_type = Experts


class LLaDAMoEModelLM(BidirectionalLlama):
    """Architecture `LLaDAMoEModelLM`: inclusionAI/LLaDA-MoE-7B-A1B-Base, -Instruct."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_regex={re.compile(r"^(model\.layers\.\d+)\.shared_expert\."): r"\1.mlp.shared_expert."},
        orig_to_new_stacked=STACKED | stacked_mlp("shared_expert"),
    )
    layer_type = staticmethod(partial(LLaDAMoELayer, attn_layer_type=LLaDAMoEAttention))
