"""Parallel decoding by a factor. Source: Fast-dLLM (arXiv:2505.22618), as NVlabs/Fast-dLLM and LLaDA-V's authors run it."""

import numpy as np

from vllm_dllm.options import Option
from vllm_dllm.unmasking.base import UnmaskingRule


class DynamicFactor(UnmaskingRule):
    """The best one, and then those whose score c_n, the n-th largest, is at least 1 - factor / (n + 1), up to the first
    that is not.

    `Factor`'s bound, with other ends. The best one needs no bound. Where no candidate fails it, all are unmasked; and the
    last of all masked positions is unmasked with those before it even if it fails alone.
    """

    option = Option(
        "dynamic_factor", float, None, "unmask the best, and those next to it with (n+1)(1-c_n) up to this", low=0
    )
    scores = ("confidence", "margin")

    def __init__(self, dynamic_factor: float):
        self.factor = dynamic_factor

    def number(self, canvas, ranked):
        n = np.arange(2, len(ranked) + 1)
        under = np.flatnonzero(ranked[1:] < 1 - self.factor / (n + 1))
        count = 1 + int(under[0]) if len(under) else len(ranked)
        # in later blocks too, and behind an end token: the source ranks them, last
        masked = np.count_nonzero(canvas.masked[: canvas.end])
        return min(len(ranked), count + (count == masked - 1))
