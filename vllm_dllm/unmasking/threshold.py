"""Parallel decoding by a confidence threshold. Source: Fast-dLLM (arXiv:2505.22618), NVlabs/Fast-dLLM."""

import numpy as np

from vllm_dllm.options import Option
from vllm_dllm.unmasking.base import UnmaskingRule


class Threshold(UnmaskingRule):
    """All candidates whose score is at least `threshold`; the largest one if there is none."""

    option = Option("threshold", float, None, "unmask all positions whose score reaches this", low=0, high=1)
    scores = ("confidence", "margin")

    def __init__(self, threshold: float):
        self.threshold = np.float32(threshold)

    def number(self, canvas, ranked):
        return max(1, int(np.count_nonzero(ranked >= self.threshold)))
