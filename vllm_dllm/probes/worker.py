"""The worker's side of probes: who measures what policies ask (base.py)."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from vllm_dllm.attention_maps.query_set import QuerySet
from vllm_dllm.messages import Batch
from vllm_dllm.probes.base import Probe

__all__ = ["Layers", "WorkerProbe"]  # what other packages may use

Positions = Mapping[int, np.ndarray]  # of some requests, by their places in the batch: canvas positions, ascending


class Layers(Protocol):
    """What a probe may ask of the forward that it looks into (worker/layerwise.py)."""

    layers: Sequence[Any]
    device: torch.device
    attention: ModuleType  # attention over paged keys: attention_maps/reference.py or kernels.py

    def keys(self, number: int) -> tuple[torch.Tensor, float]:
        """A layer's keys, as `paged_keys` gives them, and what scales a query's product with them."""

    def hidden(self, number: int) -> torch.Tensor:
        """[KV slots, hidden size]: a layer's inputs as they were last computed, of requests whose probe needs them."""

    def layer_queries(self, number: int, positions: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[N, heads, head size]: a layer's queries at canvas `positions` [N], from its inputs [N, hidden size]."""

    def attention_queries(self, batch: Batch, positions: Positions, ends: np.ndarray | None = None) -> QuerySet:
        """The queries at `positions`, whose attention to their canvas, or to what is before `ends` in it, is looked at."""

    def places(self, batch: Batch, positions: Positions) -> torch.Tensor:
        """Where the positions are among the batch's query positions."""

    def slots(self, batch: Batch, positions: Positions) -> torch.Tensor:
        """Where the hidden cache has the positions."""

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """int64, on the device."""


class WorkerProbe(ABC):
    """Measures for all requests of a step that ask; made anew for each step.

    Whatever sums over heads is to be summed over the tensor-parallel ranks, and a decision has to be the same on all of
    them (attention_maps/statistics.py).
    """

    # all that `after` looks at is there still when the pass is done: the queries, the keys in the pages. Then it may be
    # called for all layers at the end, as it is where the pass is replayed; there is no `before`, and none is widened
    at_the_end: ClassVar[bool] = False

    def __init__(self, forward: Layers, batch: Batch, asks: Mapping[int, Any]):
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


def worker_half(name: str) -> type[WorkerProbe]:
    """The class that measures what a probe asks, by the probe's `worker`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def at_the_end(asked: Iterable[Mapping[int, Probe]]) -> bool:
    """Whether that holds of all probes of a batch."""
    return all(worker_half(next(iter(asks.values())).worker).at_the_end for asks in asked)
