"""Parallel decoding by a factor. Source: Fast-dLLM (arXiv:2505.22618), as Kamichanw/d2Cache runs it."""

import numpy as np

from vllm_dllm.options import Option
from vllm_dllm.unmasking.base import UnmaskingRule


class Factor(UnmaskingRule):
    """The n largest scores, n the largest number with (n + 1) * (1 - c_n) < factor; at least one.

    c_n is the n-th largest score. A quirk of the public code is kept, so that its outputs are ours: where
    every candidate meets the bound, the last one is left for the next pass.
    """

    option = Option("factor", float, None, "unmask the most positions n with (n+1)(1-c_n) below this", low=0)
    scores = ("confidence", "margin")

    def __init__(self, factor: float):
        self.factor = factor

    def number(self, canvas, ranked):
        n = np.arange(1, len(ranked) + 1, dtype=np.float32)
        over = np.flatnonzero((n + 1) * (1 - ranked) >= self.factor)
        count = over[0] if len(over) else len(ranked) - 1
        return max(1, int(count))
