"""Prefix caching. Source: Fast-dLLM (arXiv:2505.22618), NVlabs/Fast-dLLM and Kamichanw/d2Cache."""

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.unmasking.scores import CONFIDENCE64


class Prefix(CachePolicy):
    """From the active block's start to the end of the canvas; everything in a block's first pass.

    For Dream the positions are shifted left by one, to the rows that predict them.
    """

    name = "prefix"
    reasons = ("block start",)
    needs_blocks = True
    steps_rank_by = CONFIDENCE64  # NVlabs/Fast-dLLM's loop

    def mark(self, canvas, pages):
        if canvas.block_passes == 0:
            pages.mark_all("block start")

    def positions(self, canvas):
        start, _ = canvas.block
        return self.rows(np.arange(start, canvas.end))
