"""Blocks are kept when they are finished. Source: SDAR (arXiv:2510.06303), for models whose attention is causal by blocks."""

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.causal_blocks import CausalBlocks
from vllm_dllm.options import Option

MERGE = Option(
    "merge_commits",
    bool,
    False,
    "a finished block is computed once more in the next one's first pass, not in one of its own",
)


class BlockCache(CachePolicy):
    """The active block alone; a finished one once more, and then never again.

        prompt              active
        | t t t t | t t t t | t t m m |       a pass of the prompt's whole blocks, which reads nothing
          kept      kept      computed        each pass, until no mask is left
          kept      kept      kept            one more pass, of the tokens as they are: the block is committed

    Exact: nothing that a finished block sees changes any more. So no page is ever stale for a reason of the policy's own.
    With `merge_commits` a block is committed beside the next one's first pass, which then needs no pass of its own: the
    same tokens in fewer passes.
    """

    name = "block"
    attention = ("blocks",)
    commits = True
    options = (MERGE,)

    def __init__(self, row_shift: int, merge_commits: bool = False):
        super().__init__(row_shift)
        self.merge_commits = merge_commits

    def positions(self, canvas):
        return np.empty(0, np.int64)  # what was never computed as it is now: the ledger knows

    def observe(self, canvas, pages, seen, unmasked):
        if len(seen.positions):  # it was computed with masks
            frontier = canvas.frontier
            assert isinstance(frontier, CausalBlocks)
            pages.uncompute(int(seen.positions[0]) // frontier.block_length * frontier.block_length)

    def waits(self, canvas, pages):
        return not self.merge_commits and pages.computed_to < canvas.response_end
