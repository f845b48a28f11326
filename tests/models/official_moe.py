"""A small LLaDA-MoE with random weights in the official layout, and its forward pass in plain PyTorch."""

import json

import torch
import torch.nn.functional as F
from common import CHECKPOINTS
from official import Checkpoint

# config.json of the bundled checkpoint, whose options are those of inclusionAI/LLaDA-MoE-7B-A1B, with two layers
LLADA_MOE = json.loads((CHECKPOINTS / "tiny-llada-moe" / "config.json").read_text()) | {
    "num_hidden_layers": 2,
    "moe_layer_freq": [1, 1],
    "dense_intermediate_size": 96,
}


class MoECheckpoint(Checkpoint):
    """Also with what the released ones do not have: grouped heads, a dense layer, a shared expert, an expert bias, clipped
    heads."""

    def __init__(self, config: dict):
        super().__init__(config | {"intermediate_size": config["dense_intermediate_size"]})
        self.config = config
        random = torch.Generator().manual_seed(1)
        for layer, sparse in enumerate(config["moe_layer_freq"]):
            at = f"model.layers.{layer}."
            for part in "qk":
                norm = 1 + 0.1 * torch.randn(self.width // self.heads, generator=random)
                self.weights[f"{at}self_attn.{part}_norm.weight"] = norm
            if sparse:
                for part in ("gate", "up", "down"):
                    del self.weights[self._name(part, layer)]
                self._add_experts(at, random)

    def _add_experts(self, at: str, random: torch.Generator) -> None:
        config = self.config
        count = config["num_experts"]
        self.weights[f"{at}mlp.gate.weight"] = torch.randn(count, self.width, generator=random) * self.width**-0.5
        mlps = {f"mlp.experts.{number}": config["expert_intermediate_size"] for number in range(count)}
        if size := config["shared_expert_intermediate_size"]:
            mlps["shared_expert"] = size
        for name, size in mlps.items():
            for part, shape in (("gate", (size, self.width)), ("up", (size, self.width)), ("down", (self.width, size))):
                weight = torch.randn(shape, generator=random) * shape[1] ** -0.5
                self.weights[f"{at}{name}.{part}_proj.weight"] = weight
        if config["moe_router_enable_expert_bias"]:
            self.weights[f"{at}mlp.expert_bias"] = 0.3 * torch.randn(count, generator=random)

    def _heads(self, layer, q, k, v):
        eps, clip = self.config["rms_norm_eps"], self.config["clip_qkv"]
        norms = (self.weights[f"model.layers.{layer}.self_attn.{part}_norm.weight"] for part in "qk")
        q, k = (F.rms_norm(x, norm.shape, norm, eps) for x, norm in zip((q, k), norms, strict=True))
        return (q, k, v) if clip is None else tuple(x.clamp(-clip, clip) for x in (q, k, v))

    def _mlp(self, layer, h):
        if not self.config["moe_layer_freq"][layer]:
            return super()._mlp(layer, h)
        at = f"model.layers.{layer}."
        weights = (h @ self.weights[f"{at}mlp.gate.weight"].T).softmax(-1) + self.weights.get(f"{at}mlp.expert_bias", 0)
        weights, chosen = weights.topk(self.config["num_experts_per_tok"])
        out = torch.zeros_like(h)
        for number in range(self.config["num_experts"]):
            share = (weights * (chosen == number)).sum(-1, keepdim=True)
            out += share * self._swiglu(f"{at}mlp.experts.{number}", h)
        return out + self._swiglu(f"{at}shared_expert", h) if self.config["shared_expert_intermediate_size"] else out

    def _swiglu(self, name: str, h: torch.Tensor) -> torch.Tensor:
        gate, up, down = (self.weights[f"{name}.{part}_proj.weight"] for part in ("gate", "up", "down"))
        return (F.silu(h @ gate.T) * (h @ up.T)) @ down.T
