"""The EB-Sampler: as many positions as a bound on their joint dependence allows (arXiv:2505.24857)."""

import numpy as np

from vllm_dllm.options import Option
from vllm_dllm.unmasking.base import UnmaskingRule


class EntropyBound(UnmaskingRule):
    """Candidates sorted by score, the longest prefix whose sum of entropies less the largest is at most gamma.

    At least one. Entropies in nats. The public d2Cache code takes the running maximum along the batch
    instead of along the positions, which makes it the entropy itself; this is the paper's.
    """

    option = Option("entropy_bound", float, None, "unmask within this bound on the summed entropy (EB-Sampler)", low=0)
    needs_entropy = True

    def __init__(self, entropy_bound: float):
        self.gamma = entropy_bound

    def select(self, canvas, scores, seen, rng):
        order = np.argsort(-scores[seen.positions], kind="stable")
        entropy = seen.entropy[order].astype(np.float64)
        within = np.cumsum(entropy) - np.maximum.accumulate(entropy) <= self.gamma
        return seen.positions[order[: max(1, int(within.sum()))]]
