"""LLaDA models of random weights: their shapes, their `config.json`, and how a loaded one gets its weights.

For those who want to know a machine before they have a checkpoint. No file of weights is written: vLLM's
`load_format="dummy"` needs the `config.json` alone.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

HEAD_SCALE = 3.0  # a sharper distribution than the flat one of scale 1, so that confidences differ


@dataclass(frozen=True)
class Shape:
    """What a LLaDA's size comes to. `mask` and `eos` are token ids."""

    layers: int
    width: int = 1024
    heads: int = 16
    feed_forward: int = 2816
    vocabulary: int = 16384
    mask: int = 16383
    eos: int = 16382
    max_length: int = 1024

    @property
    def layer_parameters(self) -> int:
        return 4 * self.width**2 + 3 * self.width * self.feed_forward

    @property
    def pass_parameters(self) -> int:
        """Those that a pass multiplies by: all but the embedding's, and the norms."""
        return self.layers * self.layer_parameters + self.vocabulary * self.width

    @property
    def slot_numbers(self) -> int:
        """Keys and values of one position."""
        return 2 * self.layers * self.width


SHAPES = {
    "8B": Shape(32, 4096, 32, 12288, 126464, mask=126336, eos=126081, max_length=4096),  # GSAI-ML/LLaDA-8B
    "tiny": Shape(2, 64, 2, 128, 512, mask=511, eos=510),
}


def parameter_count(text: str) -> int:
    """200M, 1B: so many parameters. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MB])", text.upper())
    if not found:
        raise ValueError(f"{text!r} is not a number of parameters such as 200M or 1B")
    return int(float(found[1]) * {"M": 1e6, "B": 1e9}[found[2]])


def shape_of(parameters: int) -> Shape:
    """About so many parameters, in layers of 1024."""
    empty, layer = Shape(0), Shape(1).layer_parameters
    return Shape(max(1, round((parameters - 2 * empty.vocabulary * empty.width) / layer)))


def named_shape(name: str) -> Shape:
    """`llada-8b` is LLaDA-8B's own, `llada-200m` one of about so many parameters. Raises ValueError."""
    family, _, size = name.lower().partition("-")
    if family != "llada":
        raise ValueError(f"{name!r} is no model that weights can be drawn for: it must be llada-SIZE, as in llada-8b")
    known = {known.lower(): shape for known, shape in SHAPES.items()}
    return known[size] if size in known else shape_of(parameter_count(size))


def write_config(shape: Shape, folder: Path) -> Path:
    """The `config.json` alone: enough for vLLM's `load_format="dummy"`."""
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2) + "\n")
    return folder


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """The distribution of `random_weights` for a loaded model of ours, in place of vLLM's dummy weights."""
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            weight.fill_(1)
        elif "embed_tokens" in name:
            weight.normal_()
        else:
            weight.normal_(0, (HEAD_SCALE if "lm_head" in name else 1) * weight.shape[-1] ** -0.5)


class RandomWeights:
    """A worker extension of vLLM's (`worker_extension_cls`)."""

    def draw_weights(self) -> None:
        """Called by `LLM.collective_rpc`, in each rank."""
        randomise(self.get_model())  # type: ignore[attr-defined]


def config(shape: Shape) -> dict:
    """What is in `config.json`."""
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "activation_type": "silu",
        "alibi": False,
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": shape.width,
        "embedding_dropout": 0.0,
        "embedding_size": shape.vocabulary,
        "eos_token_id": shape.eos,
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_device": "meta",
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": shape.mask,
        "max_sequence_length": shape.max_length,
        "mlp_hidden_size": shape.feed_forward,
        "mlp_ratio": 4,
        "multi_query_attention": None,
        "n_heads": shape.heads,
        "n_kv_heads": shape.heads,
        "n_layers": shape.layers,
        "pad_token_id": shape.eos,
        "residual_dropout": 0.0,
        "rms_norm_eps": 1e-5,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "vocab_size": shape.vocabulary,
        "weight_tying": False,
    }
