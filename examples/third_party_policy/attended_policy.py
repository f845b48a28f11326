"""A KV-cache policy that looks into the attention, with a probe of its own.

    vllm serve MODEL --dllm-cache attended --dllm-attended-k 8

This half runs in the scheduler: the policy, and what it asks the worker to measure. The half that measures is
`attended_worker.py`, which only the worker imports.
"""

from dataclasses import dataclass

import numpy as np

from vllm_dllm.caching import CachePolicy
from vllm_dllm.options import Option
from vllm_dllm.probes import Probe

ATTENDED_K = Option("attended_k", int, 8, "most-attended positions that a pass computes", low=1)


@dataclass(frozen=True, eq=False)
class Attended(Probe):
    """Gives the signal `attended`: the `count` positions that `window` attends to most in the last layer, ascending."""

    window: np.ndarray  # canvas positions, ascending, whose rows are among the queries
    row_shift: int
    count: int

    name = "attended"
    worker = "attended_worker:AttendedWorker"


class MostAttended(CachePolicy):
    """The candidates, the positions just unmasked, and those that the candidates attended to most in the last pass.

    Everything is recomputed when a block starts.
    """

    name = "attended"
    options = (ATTENDED_K,)
    reasons = ("block start",)
    probe_class = Attended

    def __init__(self, row_shift: int, attended_k: int):
        super().__init__(row_shift)
        self.attended_k = attended_k
        self.attended = np.empty(0, np.int64)

    def mark(self, canvas, pages):
        if canvas.block_passes == 0:
            pages.mark_all("block start")

    def positions(self, canvas):
        chosen = np.zeros(canvas.end, bool)
        chosen[canvas.candidates] = True
        chosen[self.rows(canvas.candidates)] = True
        chosen[canvas.just_unmasked] = True
        chosen[self.attended] = True
        return np.flatnonzero(chosen)

    def probe(self, canvas):
        return Attended(canvas.candidates, self.row_shift, self.attended_k)

    def observe(self, canvas, pages, seen, unmasked):
        self.attended = seen.signals["attended"]

    def signals(self, seen, unmasked):
        return {"attended": self.attended.tolist()}
