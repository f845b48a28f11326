"""A checkpoint is loaded whole or refused.

vLLM itself refuses names that it does not know, but ignores any bias that no layer takes, and counts a fused
projection (q, k and v; gate and up) or an unquantised linear layer as loaded when parts of it are missing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper


class WeightCheck:
    """Watches the tensors of a checkpoint on their way into `model`, after `names` has renamed them.

    In a quantised checkpoint the tensors of a layer depend on the method, so only their presence is checked.
    """

    def __init__(self, model: nn.Module, names: WeightsMapper):
        self.names = names
        self.quantised = model.quant_config is not None
        # the layer as a checkpoint has it (k_proj, not qkv_proj) -> the names of its tensors
        self.needed = _layers(model, remove_duplicate=True)
        self.known = _layers(model, remove_duplicate=False)  # a tied output head may be there, or not
        self.seen: dict[str, set[str]] = defaultdict(set)

    def watch(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """`weights`, and ValueError at the first that no layer takes."""
        for name, tensor in weights:
            if (ours := self.names.map_name(name)) is None:  # known, and not needed
                yield name, tensor
                continue
            layer, _, kind = ours.rpartition(".")
            if self._unexpected(name, layer, kind, tensor):
                raise ValueError(
                    f"the checkpoint has a tensor {name!r} of shape {list(tensor.shape)}, "
                    "for which its config.json has no layer"
                )
            self.seen[layer].add(kind)
            yield name, tensor

    def refuse_missing(self) -> None:
        """Raise ValueError if a tensor was not seen."""
        missing = []
        for layer, kinds in self.needed.items():
            if self.quantised:
                missing += [] if self.seen[layer] else [layer]
            else:
                missing += [f"{layer}.{kind}" for kind in sorted(kinds - self.seen[layer])]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ValueError(
                f"the checkpoint lacks weights for {', '.join(missing[:5])}{more}, which its config.json asks for"
            )

    def _unexpected(self, name: str, layer: str, kind: str, tensor: torch.Tensor) -> bool:
        if (
            kind in self.known.get(layer, ())
            or AutoWeightsLoader.REMOVE_UNUSED_ROTARY_EMBEDS_MAPPER.map_name(name) is None
        ):
            return False
        if kind == "bias":
            # vLLM drops it. GPTQ writes biases of zeros, which change nothing.
            return bool(tensor.any())
        return not self.quantised


def _layers(model: nn.Module, remove_duplicate: bool) -> dict[str, set[str]]:
    """The model's layers, fused ones taken apart, and the names of their parameters."""
    layers: dict[str, set[str]] = defaultdict(set)
    for name, _ in model.named_parameters(remove_duplicate=remove_duplicate):
        layer, _, kind = name.rpartition(".")
        module = model.get_submodule(layer)
        if isinstance(module, Attention):
            continue  # scales of a quantised KV cache, which have defaults
        stem, _, last = layer.rpartition(".")
        if isinstance(module, RoutedExperts):
            for part in _experts(module, kind):
                layers[f"{stem}.{part}"].add(kind.partition("_")[2])
            continue
        for part in model.packed_modules_mapping.get(last, [last]):
            layers[f"{stem}.{part}" if stem else part].add(kind)
    return dict(layers)


def _experts(module: RoutedExperts, kind: str) -> list[str]:
    """A checkpoint's names, below the fused layer's, of the layers that are parts of `kind`: w13_... or w2_..."""
    first, second = (module.ckpt_gate_proj_name, module.ckpt_up_proj_name), (module.ckpt_down_proj_name,)
    return [
        f"{number}.{name}"
        for number in range(module.moe_config.num_logical_experts)
        for name in (first if kind.startswith("w13_") else second)
    ]
