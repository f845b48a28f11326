"""Refresh when the attention of the most-attended tokens drifts. Source: Elastic-Cache (arXiv:2510.14973)."""

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.options import Option
from vllm_dllm.probes.drift import Drift

GAMMA = Option("gamma", float, 0.9, "refresh below this similarity of the tracked tokens' attention", low=0, high=1)
TRACK_NUM = Option("track_num", int, 1, "most-attended tokens that each layer tracks", low=1)


class Elastic(CachePolicy):
    """The tracked tokens, the positions unmasked in the last pass, and the window's masked positions.

    The window is the first `window_length` masked positions, instead of a block. In every layer the worker
    compares the tracked tokens' attention with what it was (of a canvas that has grown, the attention to what was there);
    where the similarity falls below `gamma`, the rest of the pass computes the whole canvas, from the next layer on. The
    next tracked tokens are, for each layer, the `track_num` positions that the window attends to most. After an end token
    is unmasked, masked positions behind it are dropped. It needs the hidden-state cache. For Dream the rows that predict
    the window's masked positions are computed instead of these, and say what to track; and its public code drops positions
    once alone, behind the leftmost end token of the first pass that unmasks one.
    """

    name = "elastic"
    options = (GAMMA, TRACK_NUM)
    reasons = ("drift",)
    probe_class = Drift
    window_length = 32
    drops_behind_end = True

    def __init__(self, row_shift: int, gamma: float, track_num: int):
        super().__init__(row_shift)
        self.drops_once = row_shift != 0
        self.gamma = gamma
        self.track_num = track_num
        self.track = np.empty(0, np.int64)
        self.known = 0  # how far the canvas existed in the last pass

    def positions(self, canvas):
        chosen = np.zeros(canvas.end, bool)
        chosen[self.track] = True
        chosen[self.rows(canvas.candidates)] = True
        chosen[canvas.just_unmasked] = True
        return chosen.nonzero()[0]

    def probe(self, canvas):
        masked = np.zeros(canvas.end, bool)
        masked[canvas.open()] = True
        return Drift(self.track, self.known, self.gamma, self.track_num, masked, self.rows(canvas.candidates))

    def observe(self, canvas, pages, seen, unmasked):
        self.track, self.known = seen.signals["tracked"], pages.computed_to
        if seen.layer_tokens[-1] > seen.layer_tokens[0]:  # the worker widened the pass by itself
            pages.note_refresh("drift")

    def signals(self, seen, unmasked):
        return {"layer_tokens": seen.layer_tokens, "tracked": seen.signals["tracked"].tolist()}
