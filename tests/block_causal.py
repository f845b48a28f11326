"""Block-causal models in plain PyTorch: SDAR, SDAR-MoE, and LLaDA2, whole canvases in float32.

Position i sees position j where j // b <= i // b, b being the block length. Weights under the names of the official
checkpoints; a random checkpoint has them too.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from common import CHECKPOINTS
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]


def causal_by_blocks(length: int, block_length: int) -> torch.Tensor:
    """[length, length]: whether the row's position sees the column's."""
    block = torch.arange(length) // block_length
    return block[None] <= block[:, None]


class BlockCausal:
    """A checkpoint's config.json and weights (random ones if there are none), and what its authors' code computes."""

    def __init__(self, config: dict, weights: Weights | None = None, seed: int = 0):
        self.config = config
        self.llada2 = config["model_type"] == "llada2_moe"
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.size = config.get("head_dim") or config["hidden_size"] // self.heads
        self.names = {"embed": "model.word_embeddings" if self.llada2 else "model.embed_tokens"}
        self.weights = self.random_weights(seed) if weights is None else {k: w.float() for k, w in weights.items()}

    @classmethod
    def load(cls, folder: Path) -> "BlockCausal":
        return cls(json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors"))

    def save(self, folder: Path, weights: Weights | None = None) -> Path:
        """The checkpoint as a folder, with the bundled checkpoints' tokenizer."""
        ignored = shutil.ignore_patterns("config.json", "*.safetensors")
        shutil.copytree(CHECKPOINTS / "tiny-llada2", folder, ignore=ignored, dirs_exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(weights or self.weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], block_length: int) -> torch.Tensor:
        """[len(ids), vocabulary]."""
        embedding = self.weights[f"{self.names['embed']}.weight"]
        x = embedding[list(ids)]
        sees = causal_by_blocks(len(ids), block_length)
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            x = x + self._attention(at, self._norm(f"{at}input_layernorm", x), sees)
            h = self._norm(f"{at}post_attention_layernorm", x)
            x = x + (self._experts(f"{at}mlp", h) if self.is_sparse(layer) else self._mlp(f"{at}mlp", h))
        x = self._norm("model.norm", x)
        if self.config["tie_word_embeddings"]:
            return x @ embedding.T
        return self._linear("lm_head", x)

    def is_sparse(self, layer: int) -> bool:
        """Whether a layer has experts."""
        config = self.config
        if self.llada2:
            return layer >= config["first_k_dense_replace"]
        if "num_experts" not in config:
            return False
        return layer not in config["mlp_only_layers"] and (layer + 1) % config["decoder_sparse_step"] == 0

    # ---- attention ----

    def _attention(self, at: str, h: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
        if self.llada2:
            at += "attention."
            qkv = self._linear(f"{at}query_key_value", h).unflatten(-1, (-1, self.size))
            q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], 1)
            names, out = ("query_layernorm", "key_layernorm"), "dense"
        else:
            at += "self_attn."
            q, k, v = (self._linear(f"{at}{part}_proj", h).unflatten(-1, (-1, self.size)) for part in "qkv")
            names, out = ("q_norm", "k_norm"), "o_proj"
        q, k = (self._rotate(self._norm(f"{at}{name}", x)) for name, x in zip(names, (q, k), strict=True))
        k, v = (x.repeat_interleave(self.heads // self.kv_heads, 1) for x in (k, v))
        mixed = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in (q, k, v)), attn_mask=sees)
        return self._linear(f"{at}{out}", mixed.transpose(0, 1).flatten(1))

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary embedding of the first part of every head of x [positions, heads, head size]."""
        turned = int(self.size * self.config.get("partial_rotary_factor", 1))
        rates = self.config["rope_theta"] ** -(torch.arange(0, turned, 2) / turned)
        angles = torch.arange(len(x))[:, None, None] * rates
        a, b = x[..., :turned].chunk(2, -1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((a * cos - b * sin, b * cos + a * sin, x[..., turned:]), -1)

    # ---- experts ----

    def _experts(self, at: str, h: torch.Tensor) -> torch.Tensor:
        chosen, weights = self.routed(at, h)
        out = torch.zeros_like(h)
        for number in range(self.config["num_experts"]):
            share = (weights * (chosen == number)).sum(-1, keepdim=True)
            out += share * self._mlp(f"{at}.experts.{number}", h)
        return out + self._mlp(f"{at}.shared_experts", h) if self.config.get("num_shared_experts") else out

    def routed(self, at: str, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers and weights [positions, experts per token] of each position's experts."""
        config, logits = self.config, self._linear(f"{at}.gate", h)
        count = config["num_experts_per_tok"]
        if not self.llada2:
            weights, chosen = logits.softmax(-1).topk(count)
            return chosen, weights / weights.sum(-1, keepdim=True) if config["norm_topk_prob"] else weights
        scores = logits.sigmoid()
        biased = (scores + self.weights[f"{at}.gate.expert_bias"]).unflatten(-1, (config["n_group"], -1))
        groups = biased.topk(2).values.sum(-1).topk(config["topk_group"]).indices
        kept = torch.zeros(biased.shape[:2], dtype=torch.bool).scatter(1, groups, True)
        chosen = biased.masked_fill(~kept[..., None], -torch.inf).flatten(1).topk(count).indices
        weights = scores.gather(1, chosen)
        if count > 1:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return chosen, weights * config["routed_scaling_factor"]

    # ---- pieces ----

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.config["rms_norm_eps"])

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def _mlp(self, at: str, h: torch.Tensor) -> torch.Tensor:
        gate, up = self._linear(f"{at}.gate_proj", h), self._linear(f"{at}.up_proj", h)
        return self._linear(f"{at}.down_proj", F.silu(gate) * up)

    # ---- random weights ----

    def random_weights(self, seed: int) -> Weights:
        """Scaled so that the model is sure of some tokens, and not of others."""
        config, random = self.config, torch.Generator().manual_seed(seed)
        width, q, kv = config["hidden_size"], self.heads * self.size, self.kv_heads * self.size
        attention_bias, found = config.get("attention_bias", False), {}

        def linear(name: str, rows: int, columns: int, bias: bool = False, scale: float = 1.0) -> None:
            found[f"{name}.weight"] = torch.randn(rows, columns, generator=random) * scale * columns**-0.5
            if bias:
                found[f"{name}.bias"] = torch.randn(rows, generator=random)

        def norm(name: str, size: int = width) -> None:
            found[f"{name}.weight"] = 1 + 0.1 * torch.randn(size, generator=random)

        def mlp(at: str, size: int) -> None:
            linear(f"{at}.gate_proj", size, width)
            linear(f"{at}.up_proj", size, width)
            linear(f"{at}.down_proj", width, size)

        linear(self.names["embed"], config["vocab_size"], width)
        for layer in range(config["num_hidden_layers"]):
            at = f"model.layers.{layer}"
            norm(f"{at}.input_layernorm")
            norm(f"{at}.post_attention_layernorm")
            if self.llada2:
                linear(f"{at}.attention.query_key_value", q + 2 * kv, width, config["use_qkv_bias"])
                linear(f"{at}.attention.dense", width, q, config["use_bias"])
            else:
                for part, rows in (("q", q), ("k", kv), ("v", kv)):
                    linear(f"{at}.self_attn.{part}_proj", rows, width, attention_bias)
                linear(f"{at}.self_attn.o_proj", width, q, attention_bias)
            for name in ("attention.query_layernorm", "attention.key_layernorm") if self.llada2 else NORMS:
                norm(f"{at}.{name}", self.size)
            if not self.is_sparse(layer):
                mlp(f"{at}.mlp", config["intermediate_size"])
                continue
            linear(f"{at}.mlp.gate", config["num_experts"], width)
            for number in range(config["num_experts"]):
                mlp(f"{at}.mlp.experts.{number}", config["moe_intermediate_size"])
            if self.llada2:
                found[f"{at}.mlp.gate.expert_bias"] = 0.1 * torch.randn(config["num_experts"], generator=random)
            if shared := config.get("num_shared_experts"):
                mlp(f"{at}.mlp.shared_experts", shared * config["moe_intermediate_size"])
        norm("model.norm")
        if not config["tie_word_embeddings"]:
            linear("lm_head", config["vocab_size"], width, scale=4.0)
        return found


NORMS = ("self_attn.q_norm", "self_attn.k_norm")
