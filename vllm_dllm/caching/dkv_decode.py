"""Delayed caching of decoded tokens. Source: dKV-Cache (arXiv:2505.15781), horseee/dKV-Cache."""

from typing import ClassVar

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.options import Option

REFRESH_INTERVAL = Option("refresh_interval", int, 2, "recompute everything each time this many passes are done", low=1)


class DKVDecode(CachePolicy):
    """All masked positions and those unmasked in the last pass: a token is cached one pass late.

    Everything is recomputed in a block's first pass and in each `refresh_interval`-th one after it. The
    public codes differ in a block's second pass: LLaDA's computes everything once more; Dream's computes
    the last position of the canvas too, though it predicts nothing and is not computed afterwards. Dream's
    code has no blocks; here each block is decoded as it decodes the response.
    """

    name = "dkv-decode"
    options: ClassVar[tuple[Option, ...]] = (REFRESH_INTERVAL,)

    def __init__(self, row_shift: int, refresh_interval: int):
        super().__init__(row_shift)
        self.refresh_interval = refresh_interval

    def mark(self, canvas, pages):
        if canvas.block_passes == 0 or (canvas.block_passes == 1 and not self.row_shift):
            pages.mark_all("block start")
        elif canvas.block_passes % self.refresh_interval == 0:
            pages.mark_all("interval")

    def positions(self, canvas):
        queries = self.rows(canvas, np.flatnonzero(canvas.masked | canvas.just_unmasked()))
        if self.row_shift and canvas.block_passes == 1:
            queries = np.append(queries, np.int32(canvas.length - 1))
        return queries
