"""No cache: every pass computes the whole canvas, as LLaDA's and Dream's own code does."""

from vllm_dllm.caching.base import CachePolicy, full_pass


class NoCache(CachePolicy):
    """The whole canvas, every pass."""

    name = "none"

    def plan(self, canvas):
        return full_pass(canvas)
