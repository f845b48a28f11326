"""Refresh when a token was unmasked in doubt. Source: EntropyCache (arXiv:2603.18489)."""

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.options import Option

TAU = Option("tau", float, 0.3, "refresh after unmasking a token whose entropy (nats) is above this", low=0)
RECENT_K = Option("recent_k", int, 32, "recently unmasked positions that are computed on", low=0)
SCOPE = Option("scope", str, "canvas", "what such a token makes stale", choices=("canvas", "page"))
REACH = Option("reach", int, 1, "scope=page: pages left and right of the token's that it makes stale", low=0)
MAX_AGE = Option("max_age", int, 4, "scope=page: pages not refreshed for this many passes are stale with them", low=1)


class Entropy(CachePolicy):
    """The masked positions of the active block (or window) and the `recent_k` most recently unmasked ones.

    Where the largest entropy among the tokens that a pass unmasked exceeds `tau`, the next pass is a
    refresh: of everything (`scope=canvas`, the paper's), or of the pages at most `reach` pages away from
    the tokens above `tau` and those not refreshed for `max_age` passes (`scope=page`, not in the paper).
    Nothing is refreshed for a block's start. Among positions unmasked in the same pass the rightmost count
    as the most recent. For Dream the rows of the masked positions are computed besides the positions.
    """

    name = "entropy"
    options = (TAU, RECENT_K, SCOPE, REACH, MAX_AGE)
    reasons = ("entropy", "age")
    needs_entropy = True

    def __init__(self, row_shift: int, tau: float, recent_k: int, scope: str, reach: int, max_age: int):
        super().__init__(row_shift)
        self.tau = tau
        self.recent_k = recent_k
        self.scope = scope
        self.reach = reach
        self.max_age = max_age
        self.recent = np.empty(0, np.int64)  # the last `recent_k` unmasked positions

    def positions(self, canvas):
        chosen = np.zeros(canvas.end, bool)
        chosen[canvas.candidates] = True
        if self.row_shift:
            chosen[self.rows(canvas.candidates)] = True
        chosen[self.recent] = True
        return chosen.nonzero()[0]

    def signals(self, seen, unmasked):
        return {"max_entropy": round(float(seen.entropy[unmasked].max(initial=0)), 6)}

    def observe(self, canvas, pages, seen, unmasked):
        if self.recent_k:
            self.recent = np.concatenate((self.recent, unmasked))[-self.recent_k :]
        above = seen.entropy[seen.positions.searchsorted(unmasked)] > self.tau
        if not np.count_nonzero(above):
            return
        if self.scope == "canvas":
            pages.mark_all("entropy")
            return
        hot = unmasked[above]
        near = hot[:, None] // pages.page_size + np.arange(-self.reach, self.reach + 1)
        pages.mark(near[(near >= 0) & (near < pages.num_pages)], "entropy")
        pages.mark(pages.age() >= self.max_age, "age")
