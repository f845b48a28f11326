"""Elastic-Cache's drift test in the worker (arXiv:2510.14973).

It decides inside the pass: a request whose tracked tokens' attention has drifted at layer l computes its whole
canvas from layer l + 1 on, each request at its own layer or not at all:

    layer          0    1    2    3
    request a      37   37   84   84     drifted at layer 1
    request b      29   29   29   29     did not drift
    request c      16   16   16   16     another policy
"""

import numpy as np
import torch

from vllm_dllm.attention_maps.query_set import QuerySet
from vllm_dllm.attention_maps.statistics import as_on_first_rank, column_mass, sum_over_ranks
from vllm_dllm.probes.worker import WorkerProbe


class DriftWorker(WorkerProbe):
    """The drift tests of one step's requests, and what each is to track next."""

    def __init__(self, forward, batch, asks):
        self.window = {i: ask.window for i, ask in asks.items()}
        self.window_queries = forward.attention_queries(batch, self.window)
        self.window_weights = torch.ones(self.window_queries.starts[-1], device=forward.device)
        self.masses: list[torch.Tensor] = []  # of each layer: the window's attention [requests, longest canvas]
        self.tracked = {
            i: ask.track for i, ask in asks.items() if len(ask.track) and len(batch.queries_of(i)) < batch.ends[i]
        }
        super().__init__(forward, batch, asks)

    def place(self, batch):
        forward = self.forward
        self.window_places = forward.places(batch, self.window)
        if self.tracked:
            known = np.asarray([self.asks[i].known for i in self.tracked], np.int32)
            self.tracked_queries = forward.attention_queries(batch, self.tracked, known)
            self.tracked_places = forward.places(batch, self.tracked)
            self.tracked_slots = forward.slots(batch, self.tracked)
            self.tracked_positions = forward.tensor(np.concatenate(list(self.tracked.values())))

    def before(self, number, hidden):
        """The tracked tokens' attention as it was: their inputs are in the hidden cache, the old keys in the pages."""
        if self.tracked:
            inputs = self.forward.hidden(number)[self.tracked_slots]
            self.old = self._weights(number, self.forward.layer_queries(number, self.tracked_positions, inputs))

    def after(self, number, queries):
        mass = column_mass(
            self.forward.attention,
            queries[self.window_places],
            self.window_weights,
            *self.forward.keys(number),
            self.window_queries,
        )
        self.masses.append(mass)
        if not self.tracked:
            return ()
        now = self._weights(number, queries[self.tracked_places])
        similarities = as_on_first_rank(similarity(self.old, now, self.tracked_queries)).tolist()
        drifted = [i for i, s in zip(self.tracked, similarities, strict=True) if s < self.asks[i].gamma]
        for i in drifted:
            del self.tracked[i]
        return drifted

    def _weights(self, number: int, queries: torch.Tensor) -> torch.Tensor:
        return self.forward.attention.attention_weights(queries, *self.forward.keys(number), self.tracked_queries)

    def signals(self):
        """Of each layer, the tokens that the window attends to most."""
        found = {}
        for (i, ask), masses in zip(self.asks.items(), torch.stack(self.masses, 1).cpu(), strict=True):
            length = len(ask.masked)
            masses = masses[:, :length].masked_fill(torch.from_numpy(ask.masked), 0)
            # rows that attend to one position alone make exact ties, which the golden files have in the CPU's order
            most = masses.topk(min(ask.track_num, length)).indices
            found[i] = {"tracked": np.unique(most.numpy())}
        return found


def similarity(old: torch.Tensor, new: torch.Tensor, of: QuerySet) -> torch.Tensor:
    """How alike two attention maps [heads, N, longest canvas] are: float32 [requests], 1 where they are the same.

    The cosine similarity over the heads for each query and key, averaged (Elastic-Cache, arXiv:2510.14973).
    """
    sums = sum_over_ranks(torch.stack(((old * new).sum(0), (old * old).sum(0), (new * new).sum(0))))
    # torch.cosine_similarity's own guard against a norm of zero
    cosines = sums[0] / (sums[1].sqrt().clamp_min(1e-8) * sums[2].sqrt().clamp_min(1e-8))
    return of.mean(cosines.sum(-1))
