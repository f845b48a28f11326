"""Prefix caching. Source: Fast-dLLM (arXiv:2505.22618), NVlabs/Fast-dLLM and Kamichanw/d2Cache."""

from typing import Any, ClassVar

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.options import Option
from vllm_dllm.unmasking.scores import CONFIDENCE64

REFRESH_INTERVAL = Option(
    "refresh_interval",
    int,
    2,
    "recompute everything each time this many passes are done (prefix: unless set, in a block's first pass alone)",
    low=1,
)


class Prefix(CachePolicy):
    """From the active block's start to the end of the canvas; everything in a block's first pass.

    With `refresh_interval`, as LLaDA-V's authors run it (arXiv:2505.16933), in each so-manieth pass of a block too.
    For Dream the positions are shifted left by one, to the rows that predict them.
    """

    name = "prefix"
    options: ClassVar[tuple[Option, ...]] = (REFRESH_INTERVAL,)
    defaults: ClassVar[dict[str, Any]] = {"refresh_interval": None}
    reasons: ClassVar[tuple[str, ...]] = ("block start", "interval")
    needs_blocks = True
    steps_rank_by = CONFIDENCE64  # NVlabs/Fast-dLLM's loop

    def __init__(self, row_shift: int, refresh_interval: int | None = None):
        super().__init__(row_shift)
        self.refresh_interval = refresh_interval

    def mark(self, canvas, pages):
        if canvas.block_passes == 0:
            pages.mark_all("block start")
        elif self.refresh_interval and canvas.block_passes % self.refresh_interval == 0:
            pages.mark_all("interval")

    def positions(self, canvas):
        start, _ = canvas.block
        return self.rows(np.arange(start, canvas.end))
