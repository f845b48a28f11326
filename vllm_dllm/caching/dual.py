"""Dual caching, of prefix and suffix. Source: Fast-dLLM (arXiv:2505.22618), NVlabs/Fast-dLLM and Kamichanw/d2Cache."""

import numpy as np

from vllm_dllm.caching.prefix import Prefix


class Dual(Prefix):
    """The active block alone; everything in a block's first pass.

    For Dream the positions are shifted left by one, to the rows that predict them.
    """

    name = "dual"
    options = ()
    reasons = ("block start",)

    def positions(self, canvas):
        start, stop = canvas.block
        return np.arange(start + self.row_shift, stop + self.row_shift)
