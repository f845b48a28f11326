"""Quantised checkpoints: the official names in `quantization_config` reach vLLM's layers."""

import pytest
import torch
from loaded import Loaded
from official import DREAM, LLADA, Checkpoint

pytestmark = pytest.mark.usefixtures("world")

IDS = [2, 3, 40, 50, 60, 70, 80, 90, 4] + [1] * 40


def in_int8(checkpoint: Checkpoint, ignored: list[str]) -> dict[str, torch.Tensor]:
    """The weights with every linear layer but `ignored` in int8, one scale a row (compressed-tensors)."""
    per_row = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    per_token = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    checkpoint.config |= {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "quantization_status": "compressed",
            "ignore": ignored,
            "config_groups": {"0": {"targets": ["Linear"], "weights": per_row, "input_activations": per_token}},
        }
    }
    weights = {}
    for name, weight in checkpoint.weights.items():
        layer = name.removesuffix(".weight")
        if weight.dim() == 2 and layer not in ignored and layer != checkpoint.names["embed"]:
            scale = weight.abs().amax(1, keepdim=True) / 127
            weights |= {name: (weight / scale).round().to(torch.int8), f"{layer}.weight_scale": scale}
        else:
            weights[name] = weight
    return weights


@pytest.mark.parametrize("base", [LLADA, DREAM], ids=["llada", "dream"])
def test_int8(base, tmp_path):
    checkpoint = Checkpoint(dict(base))
    names = checkpoint.names
    ignored = [names["head"], names["down"].format(1), *(names[part].format(0) for part in "qkv")]
    weights = in_int8(checkpoint, ignored)
    loaded = Loaded(checkpoint.save(tmp_path, weights), dtype="bfloat16")

    first, second = loaded.model.model.layers
    quantised = [first.self_attn.o_proj, first.mlp.gate_up_proj, first.mlp.down_proj, second.self_attn.qkv_proj]
    plain = [first.self_attn.qkv_proj, second.mlp.down_proj]
    assert {type(layer.quant_method).__name__ for layer in quantised} == {"CompressedTensorsLinearMethod"}
    assert {type(layer.quant_method).__name__ for layer in plain} == {"UnquantizedLinearMethod"}
    error = (loaded.log_probs(IDS) - checkpoint.forward(IDS)).abs()
    assert error.mean() < 0.05

    missing = names["k"].format(1)
    path = checkpoint.save(tmp_path / "missing", {k: v for k, v in weights.items() if not k.startswith(missing + ".")})
    with pytest.raises(ValueError, match="the checkpoint lacks weights for model.layers.1.self_attn.k_proj,"):
        Loaded(path, dtype="bfloat16")
