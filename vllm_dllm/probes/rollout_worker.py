"""d2Cache's attention rollout in the worker (arXiv:2509.23094): see attention_maps/statistics.py for what is computed.

It goes from the last layer to the first, and so is computed when the pass is done: from the queries of every
layer, which are kept, and the keys, which are in the pages.
"""

from collections.abc import Iterable
from types import ModuleType

import numpy as np
import torch

from vllm_dllm.attention_maps.query_set import QuerySet
from vllm_dllm.attention_maps.statistics import column_mass, ranks
from vllm_dllm.probes.worker import WorkerProbe


class RolloutWorker(WorkerProbe):
    """Keeps what is needed for the rollouts of one step's requests, and computes their column sums."""

    at_the_end = True

    def __init__(self, forward, batch, asks):
        self.positions = {i: batch.queries_of(i) for i in asks}
        self.query_set = forward.attention_queries(batch, self.positions)
        self.layers: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        super().__init__(forward, batch, asks)

    def place(self, batch):
        every = sum(map(len, self.positions.values())) == len(batch.positions)
        self.query_places = None if every else self.forward.places(batch, self.positions)

    def after(self, number, queries):
        if self.query_places is not None:
            queries = queries.index_select(0, self.query_places)
        self.layers.append((queries, *self.forward.keys(number)))
        return ()

    def signals(self):
        at = np.concatenate([line * self.query_set.longest + p for line, p in enumerate(self.positions.values())])
        sums = rollout_importance(
            self.forward.attention, reversed(self.layers), self.forward.tensor(at), self.query_set
        ).cpu()
        found = zip(self.positions, sums.numpy(), self.query_set.lengths, strict=True)
        return {i: {"importance": line[:n]} for i, line, n in found}


def rollout_importance(
    attention: ModuleType,
    layers: Iterable[tuple[torch.Tensor, torch.Tensor, float]],
    positions: torch.Tensor,
    of: QuerySet,
) -> torch.Tensor:
    """Column sums of the attention rollout, float32 [requests, longest canvas] (d2Cache, arXiv:2509.23094).

    `layers` are each layer's (queries, keys, scale), the last layer first; `positions` [N] are the queries'
    places in the flattened result. All other positions' rows count as identity.

    The rollout is the product of the layers' maps, the last layer leftmost; a layer's map A is the mean over
    heads plus identity, its rows divided by their sum, which is 2. Only the column sums are needed, so a
    vector v goes through the layers, v A, which is `attention_mass` with v as weights: no map is made.
    """
    importance = torch.ones((len(of), of.longest), device=positions.device)
    flat = importance.view(-1)
    for queries, keys, scale in layers:
        share = flat.index_select(0, positions) / 2
        heads = queries.shape[1] * ranks()
        flat.index_copy_(0, positions, share)
        importance += column_mass(attention, queries, share / heads, keys, scale, of)
    return importance
