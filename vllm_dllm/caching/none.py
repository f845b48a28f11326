"""No cache: every pass computes the whole canvas, as LLaDA's and Dream's own code does."""

import numpy as np

from vllm_dllm.caching.base import CachePolicy


class NoCache(CachePolicy):
    """The whole canvas, every pass."""

    name = "none"
    attention = ("full", "blocks")

    def positions(self, canvas):
        return np.arange(canvas.end)
