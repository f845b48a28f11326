"""Replayed passes that a probe looks into, where all that it needs is there when the pass is done.

A graph of them writes every layer's queries down, beside what other graphs do. So a pass costs one launch more than
none, instead of some fifteen for each layer.
"""

from functools import partial

import torch
from torch import nn

from vllm_dllm.worker.graphs import Forward


class Queries:
    """What each layer's attention got as queries in the last forward, always at the same addresses."""

    def __init__(self, model: nn.Module):
        self.attentions = [layer.self_attn.attn for layer in model.model.layers]
        self.kept: torch.Tensor | None = None  # [layers, most tokens captured, heads, head size]

    def written_by(self, forward: Forward) -> Forward:
        """The same forward, which writes them down."""

        def run() -> torch.Tensor:
            hooks = [a.register_forward_pre_hook(partial(self._write, i)) for i, a in enumerate(self.attentions)]
            try:
                return forward()
            finally:
                for hook in hooks:
                    hook.remove()

        return run

    def _write(self, number: int, attention: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        queries = inputs[0].view(len(inputs[0]), attention.num_heads, attention.head_size)
        if self.kept is None:  # the largest comes first
            self.kept = queries.new_empty((len(self.attentions), *queries.shape))
        self.kept[number, : len(queries)] = queries

    def of(self, tokens: int) -> torch.Tensor:
        """[layers, tokens, heads, head size]"""
        assert self.kept is not None
        return self.kept[:, :tokens]
