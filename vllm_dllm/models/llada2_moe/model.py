"""LLaDA2.0 (arXiv:2512.15745): a Llama with norms of q and k, half-rotated heads, and experts chosen by groups."""

import re
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.fused_moe import FusedMoEFactory, GateLinear
from vllm.model_executor.models.utils import WeightsMapper

from vllm_dllm.models.llada2_moe.names import NAMES
from vllm_dllm.models.llama import BidirectionalLlama
from vllm_dllm.models.sparse import STACKED, RoutedExperts, SparseLayer, stacked_mlp


class GroupedExperts(RoutedExperts):
    """With an MLP that every token has besides (`num_shared_experts` wide)."""

    def __init__(self, vllm_config: VllmConfig, prefix: str):
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.groups, self.kept, self.scale = config.n_group, config.topk_group, config.routed_scaling_factor
        self.gate = GateLinear(
            config.hidden_size,
            config.num_experts,
            out_dtype=torch.float32,
            force_fp32_compute=True,
            prefix=f"{prefix}.gate",
        )
        self.expert_bias = nn.Parameter(torch.zeros(config.num_experts, dtype=torch.float32), requires_grad=False)
        self.shared_experts = self.mlp_beside(vllm_config, config.shared_width, f"{prefix}.shared_experts")
        self.experts = FusedMoEFactory(
            num_experts=config.num_experts,
            top_k=config.num_experts_per_tok,
            hidden_size=config.hidden_size,
            intermediate_size=config.moe_intermediate_size,
            quant_config=vllm_config.quant_config,
            shared_experts=self.shared_experts,
            # not vLLM's own grouped choice, which is another kernel on each device
            custom_routing_function=self.routed,
            prefix=f"{prefix}.experts",
        )

    def routed(
        self, hidden_states: torch.Tensor, gating_output: torch.Tensor, topk: int, renormalize: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and numbers of each token's experts [N, topk], from the router's logits [N, experts] in float32.

        The best `topk_group` groups of experts by the sum of their two best, and the best experts of these; the bias
        counts in the choice alone. The weights sum to `routed_scaling_factor`, unless a token has one expert.
        """
        scores = gating_output.float().sigmoid()
        biased = (scores + self.expert_bias).unflatten(-1, (self.groups, -1))
        best = biased.topk(2, -1).values.sum(-1).topk(self.kept, -1).indices
        left_out = torch.ones(biased.shape[:2], dtype=torch.bool, device=scores.device).scatter(1, best, False)
        chosen = biased.masked_fill(left_out[..., None], -torch.inf).flatten(1).topk(topk, -1).indices
        weights = scores.gather(1, chosen)
        if topk > 1:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * self.scale, chosen


class LLaDA2MoeLayer(SparseLayer):
    experts_type = GroupedExperts


class LLaDA2MoeModelLM(BidirectionalLlama):
    """Architecture `LLaDA2MoeModelLM`: inclusionAI/LLaDA2.0-mini, -flash."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_regex={re.compile(k): v for k, v in NAMES.items()},
        orig_to_new_stacked=STACKED | stacked_mlp("shared_experts"),
    )
    # q, k and v are one layer in the checkpoint too
    packed_modules_mapping = {"gate_up_proj": ["gate_proj", "up_proj"]}
    layer_type = LLaDA2MoeLayer

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        return super().load_weights(self._whole_heads(weights))

    def _whole_heads(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """`weights`, and ValueError for a fused projection of another number of heads, of which vLLM takes the first."""
        config = self.config
        rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        for name, tensor in weights:
            fused = self.quant_config is None and ".query_key_value." in name
            if fused and len(tensor) != rows:
                raise ValueError(f"the checkpoint has {name!r} with {len(tensor)} rows: config.json says {rows}")
            yield name, tensor
