"""The worker's half of the probe of `attended_policy.py`: the column sums of the last layer's attention."""

import numpy as np
import torch

from vllm_dllm.attention_maps.statistics import column_mass
from vllm_dllm.probes.worker import WorkerProbe


class AttendedWorker(WorkerProbe):
    """For all requests of a step that ask."""

    at_the_end = True  # so a pass may be replayed as a CUDA graph, and is looked at when it is done

    def __init__(self, forward, batch, asks):
        self.rows = {i: ask.window + ask.row_shift for i, ask in asks.items()}
        super().__init__(forward, batch, asks)

    def place(self, batch):
        self.queries = self.forward.attention_queries(batch, self.rows)
        self.places = self.forward.places(batch, self.rows)

    def after(self, number, queries):
        if number == len(self.forward.layers) - 1:
            weights = torch.ones(len(self.places), device=queries.device)
            keys, scale = self.forward.keys(number)
            # summed over the heads of all tensor-parallel ranks
            self.mass = column_mass(self.forward.attention, queries[self.places], weights, keys, scale, self.queries)
        return ()  # no pass is widened

    def signals(self):
        found = {}
        for (i, ask), mass, length in zip(self.asks.items(), self.mass.cpu(), self.queries.lengths, strict=True):
            most = mass[:length].topk(min(ask.count, length)).indices
            found[i] = {"attended": np.sort(most.numpy())}
        return found
