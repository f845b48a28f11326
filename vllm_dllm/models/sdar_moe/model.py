"""SDAR-MoE (arXiv:2510.06303): Qwen3-MoE's layers, causal by blocks."""

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.fused_moe import FusedMoEFactory, GateLinear
from vllm.model_executor.models.utils import WeightsMapper

from vllm_dllm.models.llama import BidirectionalLlama
from vllm_dllm.models.sparse import STACKED, RoutedExperts, SparseLayer


class Experts(RoutedExperts):
    """Their weights are a softmax over all of them, and sum to 1 with `norm_topk_prob`."""

    def __init__(self, vllm_config: VllmConfig, prefix: str):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.gate = GateLinear(config.hidden_size, config.num_experts, out_dtype=torch.float32, prefix=f"{prefix}.gate")
        self.experts = FusedMoEFactory(
            num_experts=config.num_experts,
            top_k=config.num_experts_per_tok,
            hidden_size=config.hidden_size,
            intermediate_size=config.moe_intermediate_size,
            renormalize=config.norm_topk_prob,
            quant_config=vllm_config.quant_config,
            prefix=f"{prefix}.experts",
        )


class SDARMoeLayer(SparseLayer):
    experts_type = Experts


class SDARMoeForCausalLM(BidirectionalLlama):
    """Architecture `SDARMoeForCausalLM`: JetLM/SDAR-30B-A3B."""

    hf_to_vllm_mapper = WeightsMapper(orig_to_new_stacked=STACKED)
    layer_type = SDARMoeLayer
