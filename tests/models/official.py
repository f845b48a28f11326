"""Small checkpoints with random weights in the layout of the official ones, and their forward pass in plain PyTorch."""

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from common import CHECKPOINTS
from safetensors.torch import save_file

# config.json of GSAI-ML/LLaDA-8B-Instruct, whole, with small sizes and the bundled checkpoint's tokens
LLADA = {
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "auto_map": {
        "AutoConfig": "configuration_llada.LLaDAConfig",
        "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
        "AutoModel": "modeling_llada.LLaDAModelLM",
    },
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": 128,
    "embedding_dropout": 0.0,
    "embedding_size": 128,
    "eos_token_id": 0,
    "flash_attention": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_cutoff_factor": None,
    "init_device": "meta",
    "init_fn": "mitchell",
    "init_std": 0.02,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mask_token_id": 1,
    "max_sequence_length": 256,
    "mlp_hidden_size": 192,
    "mlp_ratio": 4,
    "model_type": "llada",
    "multi_query_attention": None,
    "n_heads": 4,
    "n_kv_heads": 4,
    "n_layers": 2,
    "pad_token_id": 0,
    "precision": "amp_bf16",
    "residual_dropout": 0.0,
    "rms_norm_eps": 1e-05,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "transformers_version": "4.46.3",
    "use_cache": False,
    "vocab_size": 128,
    "weight_tying": False,
}
# config.json of Dream-org/Dream-v0-Instruct-7B, likewise
DREAM = {
    "architectures": ["DreamModel"],
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
    "bos_token_id": 2,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 192,
    "mask_token_id": 1,
    "max_position_embeddings": 256,
    "max_window_layers": 28,
    "model_type": "Dream",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.46.2",
    "use_cache": False,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 128,
}

LLADA_BLOCK = "model.transformer.blocks.{}."
LLADA_NAMES = {
    "embed": "model.transformer.wte",
    "norm": "model.transformer.ln_f",
    "head": "model.transformer.ff_out",
    "attention_norm": LLADA_BLOCK + "attn_norm",
    "mlp_norm": LLADA_BLOCK + "ff_norm",
    "q": LLADA_BLOCK + "q_proj",
    "k": LLADA_BLOCK + "k_proj",
    "v": LLADA_BLOCK + "v_proj",
    "o": LLADA_BLOCK + "attn_out",
    "gate": LLADA_BLOCK + "ff_proj",
    "up": LLADA_BLOCK + "up_proj",
    "down": LLADA_BLOCK + "ff_out",
}
DREAM_BLOCK = "model.layers.{}."
DREAM_NAMES = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "attention_norm": DREAM_BLOCK + "input_layernorm",
    "mlp_norm": DREAM_BLOCK + "post_attention_layernorm",
    "q": DREAM_BLOCK + "self_attn.q_proj",
    "k": DREAM_BLOCK + "self_attn.k_proj",
    "v": DREAM_BLOCK + "self_attn.v_proj",
    "o": DREAM_BLOCK + "self_attn.o_proj",
    "gate": DREAM_BLOCK + "mlp.gate_proj",
    "up": DREAM_BLOCK + "mlp.up_proj",
    "down": DREAM_BLOCK + "mlp.down_proj",
}


class Checkpoint:
    """A random checkpoint, and what its authors' modelling code computes with it."""

    def __init__(self, config: dict):
        self.config = config
        self.llada = "d_model" in config  # OLMo's names; all others have Llama's
        self.names = LLADA_NAMES if self.llada else DREAM_NAMES
        sizes = "d_model n_heads n_kv_heads n_layers mlp_hidden_size embedding_size weight_tying max_sequence_length"
        if not self.llada:
            sizes = (
                "hidden_size num_attention_heads num_key_value_heads num_hidden_layers intermediate_size vocab_size "
                "tie_word_embeddings max_position_embeddings"
            )
        self.width, self.heads, self.kv, self.layers, self.ff, self.vocab, self.tied, self.length = map(
            config.get, sizes.split()
        )
        if self.kv is None:
            self.kv = 1 if config.get("multi_query_attention") else self.heads
        self.ff = self.ff or config["mlp_ratio"] * self.width
        self.vocab = self.vocab or config["vocab_size"]
        self.weights = self._random_weights()

    def _random_weights(self) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(0)
        config = self.config
        bias = config.get("include_bias", False)
        qkv_bias = config.get("include_qkv_bias") or config["model_type"] == "Dream"
        attention, mlp = bias or config.get("attention_bias", False), bias or config.get("mlp_bias", False)
        kv_width = self.width // self.heads * self.kv
        linear = {  # name: rows, columns, bias
            "q": (self.width, self.width, attention or qkv_bias),
            "k": (kv_width, self.width, attention or qkv_bias),
            "v": (kv_width, self.width, attention or qkv_bias),
            "o": (self.width, self.width, attention),
            "gate": (self.ff, self.width, mlp),
            "up": (self.ff, self.width, mlp),
            "down": (self.width, self.ff, mlp),
        }
        weights = {f"{self.names['embed']}.weight": torch.randn(self.vocab, self.width, generator=random)}
        for layer in [*range(self.layers), None]:
            for name in ("attention_norm", "mlp_norm") if layer is not None else ("norm",):
                weights[self._name(name, layer)] = 1 + 0.1 * torch.randn(self.width, generator=random)
            parts = linear if layer is not None else {} if self.tied else {"head": (self.vocab, self.width, bias)}
            for name, (rows, columns, has_bias) in parts.items():
                weights[self._name(name, layer)] = torch.randn(rows, columns, generator=random) * columns**-0.5
                if has_bias:
                    weights[self._name(name, layer, "bias")] = torch.randn(rows, generator=random)
        return weights

    def _name(self, part: str, layer: int | None, kind: str = "weight") -> str:
        return f"{self.names[part].format(layer)}.{kind}"

    def save(self, path: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
        """The checkpoint as a directory, with the bundled checkpoint's tokenizer."""
        bundled = CHECKPOINTS / ("tiny-llada" if self.llada else "tiny-dream")
        ignore = shutil.ignore_patterns("config.json", "*.safetensors")
        shutil.copytree(bundled, path, ignore=ignore, dirs_exist_ok=True)
        (path / "config.json").write_text(json.dumps(self.config))
        save_file(weights or self.weights, path / "model.safetensors", metadata={"format": "pt"})
        return path

    def forward(self, ids: list[int]) -> torch.Tensor:
        """Log probabilities [len(ids), vocabulary] in float32."""
        x = self.weights[self._name("embed", None)][ids]
        angles = torch.arange(len(ids))[:, None] / self.config["rope_theta"] ** (
            torch.arange(0, self.width // self.heads, 2) / (self.width // self.heads)
        )
        for layer in range(self.layers):
            h = self._norm("attention_norm", layer, x)
            q, k, v = (self._linear(part, layer, h).unflatten(-1, (-1, self.width // self.heads)) for part in "qkv")
            q, k, v = self._heads(layer, q, k, v)
            q, k = rotate(q, angles), rotate(k, angles)
            k, v = (t.repeat_interleave(self.heads // self.kv, 1) for t in (k, v))
            mixed = F.scaled_dot_product_attention(*(t.transpose(0, 1) for t in (q, k, v)))
            x = x + self._linear("o", layer, mixed.transpose(0, 1).flatten(1))
            h = self._norm("mlp_norm", layer, x)
            x = x + self._mlp(layer, h)
        x = self._norm("norm", None, x)
        logits = x @ self.weights[self._name("embed", None)].T if self.tied else self._linear("head", None, x)
        if self.config.get("scale_logits"):
            logits = logits / self.width**0.5
        return logits.log_softmax(-1)

    def _heads(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values [tokens, heads, head size], before the rotation."""
        return q, k, v

    def _mlp(self, layer: int, h: torch.Tensor) -> torch.Tensor:
        return self._linear("down", layer, F.silu(self._linear("gate", layer, h)) * self._linear("up", layer, h))

    def _norm(self, part: str, layer: int | None, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (self.width,), self.weights[self._name(part, layer)], self.config["rms_norm_eps"])

    def _linear(self, part: str, layer: int | None, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[self._name(part, layer)], self.weights.get(self._name(part, layer, "bias")))


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of x [tokens, heads, head size]: its halves are the two coordinates."""
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
