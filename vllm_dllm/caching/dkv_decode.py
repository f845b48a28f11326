"""Delayed caching of decoded tokens. Source: dKV-Cache (arXiv:2505.15781), horseee/dKV-Cache."""

from typing import ClassVar

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.caching.prefix import REFRESH_INTERVAL
from vllm_dllm.options import Option
from vllm_dllm.unmasking.scores import CONFIDENCE64

SHIFT = Option(
    "shift",
    str,
    "un",
    "compute the rows that predict masked and just-unmasked positions (un), or the positions' own too (un_right)",
    choices=("un", "un_right"),
    when=lambda choice: choice.row_shift != 0,
    read_by="with a Dream model",
)


class DKVDecode(CachePolicy):
    """All masked positions and those unmasked in the last pass: a token is cached one pass late.

    Everything is recomputed in a block's first pass and in each `refresh_interval`-th one after it. The
    public codes differ in a block's second pass: LLaDA's computes everything once more; Dream's computes
    the last position of the canvas too, though it predicts nothing and is not computed afterwards. Dream's
    code has no blocks; here each block is decoded as it decodes the response.

    For Dream, `shift` is the public code's `shift_type`. With `un` a token whose right neighbour was unmasked
    before it keeps the keys and values of the mask until everything is recomputed:

        position    4     5     6         row 5 predicts 6, row 4 predicts 5
        before      a   [mask]  c         5 is masked, so row 4 is computed; row 5 is not: 6 is known
        after       a     b     c         `un` computes row 4 once more, `un_right` row 5 too

    `un_right` computes the last position of the canvas whenever it computes the one before.
    """

    name = "dkv-decode"
    reasons = ("block start", "interval")
    steps_rank_by = CONFIDENCE64  # horseee/dKV-Cache's loop
    options: ClassVar[tuple[Option, ...]] = (REFRESH_INTERVAL, SHIFT)

    def __init__(self, row_shift: int, refresh_interval: int, shift: str = SHIFT.default):
        super().__init__(row_shift)
        self.refresh_interval = refresh_interval
        self.shift = shift

    def mark(self, canvas, pages):
        if canvas.block_passes == 0 or (canvas.block_passes == 1 and not self.row_shift):
            pages.mark_all("block start")
        elif canvas.block_passes % self.refresh_interval == 0:
            pages.mark_all("interval")

    def positions(self, canvas):
        alive = canvas.masked[: canvas.end].copy()
        alive[canvas.just_unmasked] = True
        live = np.flatnonzero(alive)
        queries = self.rows(live)
        last = canvas.end - 1
        if self.row_shift and self.shift == "un_right":
            queries = np.union1d(queries, live)
            return np.union1d(queries, last) if last - 1 in queries else queries
        if self.row_shift and canvas.block_passes == 1:
            queries = np.append(queries, last)
        return queries
