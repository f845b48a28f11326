"""LLaDA checkpoints of random weights, of a chosen size, in the official layout."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from vllm_dllm.compare.random_weights import HEAD_SCALE, Shape, parameter_count, shape_of, write_config

CACHE = Path.home() / ".cache" / "vllm-dllm"


def add_model(parser: argparse.ArgumentParser) -> None:
    """The two options that say which model is measured."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="folder of a LLaDA checkpoint")
    model.add_argument("--random", type=parameter_count, metavar="SIZE", help="random weights: 200M")


def random_model(parameters: int, cache: Path = CACHE) -> Path:
    """The folder of a checkpoint with about `parameters` parameters; made once, then found in `cache`."""
    shape = shape_of(parameters)
    folder = cache / f"random-llada-{shape.layers}x{shape.width}"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(random_weights(shape), folder / "model.safetensors", metadata={"format": "pt"})
        # last: it says that the folder is complete
        write_config(shape, folder)
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
