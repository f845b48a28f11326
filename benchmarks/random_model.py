"""LLaDA checkpoints of random weights, of a chosen size, in the official layout."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

CACHE = Path.home() / ".cache" / "vllm-dllm"
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
    """200M, 1B: so many parameters."""
    return int(float(text[:-1]) * {"M": 1e6, "B": 1e9}[text[-1]])


def add_model(parser: argparse.ArgumentParser) -> None:
    """The two options that say which model is measured."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="folder of a LLaDA checkpoint")
    model.add_argument("--random", type=parameter_count, metavar="SIZE", help="random weights: 200M")


def random_model(parameters: int, cache: Path = CACHE) -> Path:
    """The folder of a checkpoint with about `parameters` parameters; made once, then found in `cache`."""
    empty = Shape(0)
    layer = Shape(1).layer_parameters
    layers = max(1, round((parameters - 2 * empty.vocabulary * empty.width) / layer))
    shape = Shape(layers)
    folder = cache / f"random-llada-{layers}x{shape.width}"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(random_weights(shape), folder / "model.safetensors", metadata={"format": "pt"})
        # last: it says that the folder is complete
        write_config(shape, folder)
    return folder


def write_config(shape: Shape, folder: Path) -> Path:
    """The `config.json` alone: enough for vLLM's `load_format="dummy"`."""
    (folder / "config.json").write_text(json.dumps(config(shape), indent=2) + "\n")
    return folder


def random_weights(shape: Shape, device: str = "cpu") -> dict[str, torch.Tensor]:
    """By their official names, in bfloat16. The same ones each time on one kind of device."""
    random = torch.Generator(device).manual_seed(0)
    width, vocabulary = shape.width, shape.vocabulary

    def matrix(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(rows, columns, generator=random, device=device)
        return (values * (scale * columns**-0.5)).to(torch.bfloat16)

    ones = torch.ones(width, dtype=torch.bfloat16, device=device)
    top = "model.transformer."
    weights = {
        top + "wte.weight": matrix(vocabulary, width, width**0.5),
        top + "ln_f.weight": ones,
        top + "ff_out.weight": matrix(vocabulary, width, HEAD_SCALE),
    }
    for i in range(shape.layers):
        block = f"{top}blocks.{i}."
        weights |= {block + f"{part}.weight": ones.clone() for part in ("attn_norm", "ff_norm")}
        weights |= {
            block + f"{part}.weight": matrix(width, width) for part in ("q_proj", "k_proj", "v_proj", "attn_out")
        }
        weights |= {block + f"{part}.weight": matrix(shape.feed_forward, width) for part in ("ff_proj", "up_proj")}
        weights[block + "ff_out.weight"] = matrix(width, shape.feed_forward)
    return weights


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
