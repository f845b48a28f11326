"""Parallel decoding by entropy. Source: dParallel (arXiv:2509.26488) and d3LLM (arXiv:2601.07568), hao-ai-lab/d3LLM."""

import numpy as np

from vllm_dllm.options import Option
from vllm_dllm.unmasking.base import UnmaskingRule


class EntropyThreshold(UnmaskingRule):
    """All candidates whose entropy (nats) is at most `entropy_threshold`, and the one with the least.

    Of the first of several active blocks at least one, the one with the least entropy there. Of LLaDA's code; Dream's is
    `DreamEntropyThreshold`. With one active block they differ in a bound that is met exactly alone.
    """

    option = Option("entropy_threshold", float, None, "unmask all positions whose entropy (nats) is within this", low=0)
    scores = ("entropy",)

    def __init__(self, entropy_threshold: float):
        self.threshold = entropy_threshold

    def select(self, canvas, scores, seen, rng):
        at = canvas.candidates
        entropy = -scores[at]
        chosen = self.within(entropy)
        first = np.flatnonzero(at < canvas.frontier.first_stop)
        if len(first) and not chosen[first].any():
            chosen[first[entropy[first].argmin()]] = True
        return at[chosen]

    def within(self, entropy: np.ndarray) -> np.ndarray:
        """bool: which of the candidates are unmasked, in whatever block they are."""
        chosen = entropy <= self.threshold
        chosen[entropy.argmin()] = True
        return chosen


class DreamEntropyThreshold(EntropyThreshold):
    """All candidates whose entropy (nats) is below `entropy_threshold`. Of the first of several active blocks at least
    one, the one with the least entropy there."""

    def within(self, entropy):
        return entropy < self.threshold
