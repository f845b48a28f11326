"""Delayed caching of whole blocks. Source: d3LLM (arXiv:2601.07568), hao-ai-lab/d3LLM."""

from typing import Any, ClassVar

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.caching.prefix import REFRESH_INTERVAL
from vllm_dllm.options import Option

CACHE_DELAY_ITER = Option(
    "cache_delay_iter",
    int,
    2,
    "passes for which a block without masked positions (or the prompt) is still computed",
    low=0,
)


class D3(CachePolicy):
    """From the end of the cached blocks to the end of the canvas; everything while a finished block is not cached yet.

    The prompt counts as a block. Blocks are cached in their order, each when it has had no masked positions for
    `cache_delay_iter` passes. With `refresh_interval`, everything in each so-manieth pass too. LLaDA's code counts a
    block's passes from when all before it are cached, Dream's for all finished blocks at once. For Dream the row that
    predicts the first of these positions is computed too, where it is masked. (The public code reads it at its own row.)
    """

    name = "d3"
    options: ClassVar[tuple[Option, ...]] = (CACHE_DELAY_ITER, REFRESH_INTERVAL)
    defaults: ClassVar[dict[str, Any]] = {"refresh_interval": None}
    reasons = ("delay", "interval")
    needs_blocks = True

    def __init__(self, row_shift: int, cache_delay_iter: int, refresh_interval: int | None = None):
        super().__init__(row_shift)
        self.cache_delay_iter = cache_delay_iter
        self.refresh_interval = refresh_interval
        self.finished_in: list[int] = [0]  # of the prompt and then each block, the pass before which that was seen
        self.cached_to = 0  # positions before this are computed no more
        self.caching = 0  # and when the pass under way is done

    def mark(self, canvas, pages):
        number = canvas.passes + 1
        self.caching, waits = self.cached_to, False
        blocks = [(0, canvas.prompt_len), *canvas.frontier.opened_blocks(canvas)]
        for i, (start, stop) in enumerate(blocks):
            if canvas.masked[start:stop].any():
                break
            if i == len(self.finished_in):
                self.finished_in.append(number)
            if number - self.finished_in[i] >= self.cache_delay_iter:
                self.caching = max(self.caching, stop)
            else:
                waits = True
                if not self.row_shift:
                    break
        if self.caching > self.cached_to or not self.cached_to:
            return  # what is cached now is computed once more; before that, everything is
        if waits:
            pages.mark_all("delay")
        elif self.refresh_interval and number % self.refresh_interval == 0:
            pages.mark_all("interval")

    def positions(self, canvas):
        first = self.rows(canvas.candidates[:1]).tolist()
        return np.arange(min([self.cached_to, *first]), canvas.end)

    def observe(self, canvas, pages, seen, unmasked):
        self.cached_to = self.caching
