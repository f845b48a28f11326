"""A KV-cache policy from outside vllm-dllm.

    pip install examples/third_party_policy
    vllm serve MODEL --dllm-cache sliding --dllm-lookback 16

A policy is plain Python over a canvas: it says which positions the next pass computes, and which pages of
the KV cache have become stale. It runs for every model and every unmasking rule, in a batch with others.
"""

import numpy as np

from vllm_dllm.caching import CachePolicy
from vllm_dllm.options import Option

LOOKBACK = Option("lookback", int, 16, "positions computed left of the first masked one", low=0)


class Sliding(CachePolicy):
    """From `lookback` positions before the first masked position to the active block's end.

    Everything is recomputed when a block starts.
    """

    name = "sliding"
    options = (LOOKBACK,)
    reasons = ("block start",)

    def __init__(self, row_shift: int, lookback: int):
        super().__init__(row_shift)
        self.lookback = lookback

    def mark(self, canvas, pages):
        if canvas.block_passes == 0:
            pages.mark_all("block start")

    def positions(self, canvas):
        masked = canvas.candidates
        # with row_shift -1 (Dream) a position is predicted at the row before it
        start = max(0, masked[0] + self.row_shift - self.lookback)
        return np.arange(start, masked[-1] + 1)
