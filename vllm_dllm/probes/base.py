"""A probe: a look into the attention of a pass.

    policy.probe(canvas) --> Probe --(batch)--> WorkerProbe, in each layer --(signals, by name)--> policy.observe

A policy returns one for a pass; it crosses to the worker in the batch, under its name. There its other half, a
`WorkerProbe`, is called around every layer for all requests of the step that ask it.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

    from vllm_dllm.messages import Batch
    from vllm_dllm.worker.layerwise import LayerwiseForward


class Probe:
    """The scheduler's half: what one request's pass is asked to measure. A picklable, frozen dataclass of numbers and
    arrays, which imports neither PyTorch nor vLLM."""

    name: ClassVar[str]
    worker: ClassVar[str]  # "module:class", its other half, imported in the worker alone
    needs_hidden: ClassVar[bool] = False  # the worker keeps every layer's inputs (`dllm_hidden_cache`)
    widens: ClassVar[bool] = False  # it may have the rest of a pass compute the whole canvas; needs `needs_hidden`


class WorkerProbe(ABC):
    """The worker's half, made anew for each step: measures for all requests that ask.

    `forward` gives it the model's layers (worker/layerwise.py): `keys`, `layer_queries`, `hidden`, and the
    places of canvas positions in the batch and in the caches. Whatever sums over heads is to be summed over the
    tensor-parallel ranks, and a decision has to be the same on all of them (attention_maps/statistics.py).
    """

    def __init__(self, forward: LayerwiseForward, batch: Batch, asks: Mapping[int, Any]):
        """`asks`: the probes, by the request's place in the batch."""
        self.forward = forward
        self.asks = asks
        self.place(batch)

    def place(self, batch: Batch) -> None:  # noqa: B027
        """The batch's query positions have changed: a pass was widened."""

    def before(self, number: int, hidden: torch.Tensor) -> None:  # noqa: B027
        """Before layer `number` computes; `hidden` [T, hidden size] are its inputs at the query positions."""

    @abstractmethod
    def after(self, number: int, queries: torch.Tensor) -> Collection[int]:
        """After layer `number`, whose attention had `queries` [T, heads, head size].

        Which requests (places in the batch) are to compute their whole canvas from the next layer on.
        """

    @abstractmethod
    def signals(self) -> dict[int, dict[str, Any]]:
        """When the pass is done: what was measured, by the request's place in the batch and the signal's name."""


def worker_half(probe: Probe) -> type[WorkerProbe]:
    """The class that measures what `probe` asks."""
    module, _, name = probe.worker.partition(":")
    return getattr(importlib.import_module(module), name)
