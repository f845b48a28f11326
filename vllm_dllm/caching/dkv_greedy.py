"""Caching with a known order of unmasking. Source: dKV-Cache (arXiv:2505.15781), horseee/dKV-Cache."""

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.caching.dkv_decode import REFRESH_INTERVAL
from vllm_dllm.options import Option, SettingError

WINDOW_SIZE = Option("window_size", int, 4, "masked neighbours computed with each position to be unmasked", low=0)


class DKVGreedy(CachePolicy):
    """The positions unmasked in the last pass, those to be unmasked in this one, and for each of the latter
    the `window_size` nearest masked positions, the left one first where two are as near.

    Everything is recomputed in a block's first pass and in each `refresh_interval`-th one after it. The
    order of unmasking has to be known in advance, so the score is `random` and the rule a fixed number of
    tokens. LLaDA only, as in the public code.
    """

    name = "dkv-greedy"
    options = (REFRESH_INTERVAL, WINDOW_SIZE)
    reasons = ("block start", "interval")
    looks_ahead = True
    example = {"dllm_score": "random", "dllm_tokens_per_step": 1}

    def __init__(self, row_shift: int, refresh_interval: int, window_size: int):
        super().__init__(row_shift)
        self.refresh_interval = refresh_interval
        self.window_size = window_size

    @classmethod
    def check(cls, rule, score, row_shift):
        if row_shift:
            raise SettingError("dllm_cache='dkv-greedy' is not allowed for this model: it is for LLaDA models only")
        if score != "random":
            raise SettingError(f"dllm_score={score!r} is not allowed with dllm_cache=dkv-greedy: it must be random")
        if rule not in ("steps", "tokens_per_step"):
            raise SettingError(
                f"dllm_{rule} is not allowed with dllm_cache=dkv-greedy: the rule must be dllm_steps or "
                "dllm_tokens_per_step, whose choices do not hang on what a pass reads"
            )

    def mark(self, canvas, pages):
        if canvas.block_passes == 0:
            pages.mark_all("block start")
        elif canvas.block_passes % self.refresh_interval == 0:
            pages.mark_all("interval")

    def positions(self, canvas):
        masked = canvas.masked[: canvas.end]
        chosen = np.zeros(canvas.end, bool)
        chosen[canvas.just_unmasked] = True
        chosen[self.coming] = True
        for position in self.coming.tolist():
            near = np.flatnonzero(masked & ~chosen)
            distance = near - position
            order = np.argsort(2 * np.abs(distance) - (distance < 0))
            chosen[near[order[: self.window_size]]] = True
        return self.rows(np.flatnonzero(chosen))
