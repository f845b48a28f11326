"""The linear layers of a random checkpoint in the formats that public checkpoints come in."""

from collections.abc import Callable

import torch
from official import Checkpoint

GROUP = 32
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # which column is in which four bits


def quantise(
    checkpoint: Checkpoint, skipped: list[str], make: Callable[[torch.Tensor], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors, those of its linear layers but `skipped` as `make` gives them, by the last part of the
    name. Its own weights become what the quantised ones stand for."""
    weights = {}
    for name, weight in checkpoint.weights.items():
        layer = name.removesuffix(".weight")
        if weight.dim() != 2 or layer in (*skipped, checkpoint.names["embed"]) or layer.endswith("mlp.gate"):
            weights[name] = weight
            continue
        parts = make(weight)
        checkpoint.weights[name] = parts.pop("means")
        weights |= {f"{layer}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    return weights


def four_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers 0 to 15 [columns, rows], a scale for each group of columns [groups, rows], and what they mean [rows, columns]
    with 8 as zero."""
    groups = weight.T.unflatten(0, (-1, GROUP))
    scales = (groups.abs().amax(1) / 7).half().float()
    numbers = (groups / scales[:, None]).round().clamp(-8, 7)
    return (numbers + 8).int().flatten(0, 1), scales, (numbers * scales[:, None]).flatten(0, 1).T.contiguous()


def packed(numbers: torch.Tensor, order: list[int] | None = None) -> torch.Tensor:
    """Eight numbers of the last dimension in 32 bits."""
    eights = numbers.long().unflatten(-1, (-1, 8))[..., order or list(range(8))]
    word = (eights << torch.arange(0, 32, 4)).sum(-1)
    return torch.where(word >= 1 << 31, word - (1 << 32), word).int()


def gptq(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    numbers, scales, means = four_bits(weight)
    return {
        "qweight": packed(numbers.T).T,
        "qzeros": packed(torch.full(scales.shape, 7)),  # one less than zero is
        "scales": scales.half(),
        "g_idx": torch.arange(len(numbers), dtype=torch.int32) // GROUP,
        "means": means,
    }


def awq(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    numbers, scales, means = four_bits(weight)
    zeros = torch.full(scales.shape, 8)
    return {
        "qweight": packed(numbers, AWQ_ORDER),
        "qzeros": packed(zeros, AWQ_ORDER),
        "scales": scales.half(),
        "means": means,
    }


def fp8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = weight.abs().max() / 448
    numbers = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": numbers, "weight_scale": scale, "means": numbers.float() * scale}
