"""Compute what is certain soon, and what attention flows through. Source: d2Cache (arXiv:2509.23094)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.caching.nucleus import nuclei
from vllm_dllm.canvas import Canvas
from vllm_dllm.options import Option, SettingError
from vllm_dllm.probes.rollout import Rollout
from vllm_dllm.unmasking.base import best
from vllm_dllm.unmasking.scores import raw_scores, response_certainties

ROLLOUT_P = Option("rollout_p", float, 0.4, "share of the attention rollout that is computed", low=0, high=1)
CURRENT_K = Option("current_k", int, 32, "masked positions that a pass computes", low=1)
CACHE_SIGMA = Option("cache_sigma", float, 10.0, "width of the certainty density, in tokens", low=0.01, high=10000)
INFLATE_W = Option("inflate_w", int, 0, "gaps of at most this width between computed positions are filled", low=0)


class D2(CachePolicy):
    """Two stages after each pass choose what the next one computes.

    1. Masked positions: the `current_k` best by score times certainty density, the active block's first,
       up to a boundary at or after the `current_k`-th masked position.
    2. The tokens just unmasked, and among the other positions those that carry `rollout_p` of the
       attention rollout's column sums, at least one.

    For Dream a chosen masked position stands for the row before it. So that its outputs are ours, these
    oddities of the public code are kept:

    - Boundaries lie at the multiples of the number of positions that were masked in the active block
      before the pass, not of the block length: its block mask loses in place what is unmasked.
    - The score is the first pass's: it means to update it where a pass computed the position, but updates
      a copy.
    - "The active block's first" is done by adding the largest score to theirs. With the score `entropy`,
      which is negative, that sets them back instead.
    - A candidate that was not computed counts as read, with a uniform distribution: token 0, the lowest
      score. A pass that computed no candidate, or too few for the rule, unmasks such.
    - Dream's last prompt row is computed if and only if the first response position is chosen in stage 1
      (or it lies in a gap that is filled), whatever its importance.
    """

    name = "d2"
    options = (ROLLOUT_P, CURRENT_K, CACHE_SIGMA, INFLATE_W)
    probe_class = Rollout
    needs_blocks = True
    needs_one_block = True  # it may leave candidates out of a pass, all of the first block's among them

    # requests whose passes are done, with their canvases: what their next ones compute is found for all at once
    _waiting: ClassVar[list[tuple["D2", Canvas]]] = []

    def __init__(self, row_shift: int, rollout_p: float, current_k: int, cache_sigma: float, inflate_w: int):
        super().__init__(row_shift)
        self.rollout_p = rollout_p
        self.current_k = current_k
        self.sigma = cache_sigma
        self.inflate_w = inflate_w
        self.first_scores: np.ndarray | None = None  # of the response's positions; NaN where none was read
        self.chosen: np.ndarray | None = None  # bool, one for each canvas position: the next pass
        self.waits_for_stages = False  # after the last pass, until the next one's `mark`
        self.first_certain = False  # whether stage 1 has chosen the first response position
        self.unmasked = np.empty(0, np.int64)  # by the last pass
        self.importance = np.empty(0, np.float32)  # in the last pass
        self.again = False  # the next pass is like the first
        self.known = 0  # how far the canvas existed in the last pass

    @classmethod
    def check(cls, rule, score, row_shift):
        if score in ("random", "origin"):
            raise SettingError(
                f"dllm_score={score!r} is not allowed with dllm_cache=d2: it must be confidence, margin or entropy"
            )

    def mark(self, canvas, pages):
        if self.waits_for_stages:
            waiting, D2._waiting = D2._waiting, []
            _choose_next(waiting)
        self.candidates = canvas.candidates  # before the pass
        if self.chosen is not None and self.known < canvas.end:  # the canvas has grown: what is new is computed anyway
            self.chosen[self.known + self.row_shift : canvas.end] = True
        self.known = canvas.end

    def positions(self, canvas):
        if self.chosen is None:
            return np.arange(canvas.end)
        return np.flatnonzero(self.chosen[: canvas.end])

    def probe(self, canvas):
        return Rollout()

    def reads(self, canvas):
        if self.chosen is None:  # the first pass scores the whole response
            return canvas.open()
        candidates = canvas.candidates
        return candidates[self.chosen[self.rows(candidates)]]

    def complete(self, canvas, seen):
        if self.chosen is None:
            return seen
        # the candidates that were computed are what was read
        read = self.chosen[self.rows(canvas.candidates)]
        if read.all():
            return seen

        def filled(values: np.ndarray | None, fill: float) -> np.ndarray | None:
            if values is None:
                return None
            every = np.full((len(read), *values.shape[1:]), fill, values.dtype)
            every[read] = values
            return every

        uniform = np.log(seen.vocab_size)
        logprobs = seen.logprobs and tuple(filled(v, f) for v, f in zip(seen.logprobs, (0, -uniform, 1), strict=True))
        return replace(
            seen,
            positions=canvas.candidates,
            tokens=filled(seen.tokens, 0),
            confidence=filled(seen.confidence, 1 / seen.vocab_size),
            margin=filled(seen.margin, 0),
            entropy=filled(seen.entropy, uniform),
            logprobs=logprobs,
        )

    def observe(self, canvas, pages, seen, unmasked):
        if self.first_scores is None:
            self.first_scores = np.full(canvas.decoded_end - canvas.prompt_len, np.nan, np.float32)
        at = seen.positions - canvas.prompt_len
        new = np.isnan(self.first_scores[at])
        self.first_scores[at[new]] = raw_scores(seen.score, seen)[new]
        self.unmasked, self.importance = unmasked, seen.signals["importance"]
        if self.again:
            self.chosen, self.again = None, False
        else:
            self.waits_for_stages = True
            self._waiting.append((self, canvas))

    def start_over(self):
        self.again = True

    def first_stage(self, canvas: Canvas, certainty: np.ndarray) -> np.ndarray:
        """What it and the unmasking say of the next pass: a boolean for each canvas position, `chosen` from now on."""
        certain = self._certain(canvas, certainty)
        rows = self.rows(certain)
        self.chosen = np.zeros(canvas.length, bool)
        self.chosen[rows[rows >= canvas.prompt_len]] = True
        self.chosen[self.unmasked] = True
        self.first_certain = canvas.prompt_len in certain
        return self.chosen

    def second_stage(self, canvas: Canvas, flows: np.ndarray) -> None:
        """Besides, the positions `flows`."""
        assert self.chosen is not None
        self.chosen[flows] = True
        if self.row_shift:  # the last prompt row: stage 1 alone decides, not the rollout
            self.chosen[canvas.prompt_len - 1] = self.first_certain
        if self.inflate_w:
            fill_gaps(self.chosen, self.inflate_w)
        self.waits_for_stages = False

    def _certain(self, canvas: Canvas, certainty: np.ndarray) -> np.ndarray:
        """Masked positions."""
        assert self.first_scores is not None
        start, never = canvas.prompt_len, np.isnan(self.first_scores)
        masked = canvas.open() - start
        masked = masked[~never[masked]]  # the others have not been computed yet
        last = masked[self.current_k - 1] if len(masked) >= self.current_k else canvas.gen_length - 1
        scores = self.first_scores * certainty
        scores[never] = -np.inf
        scores[self.candidates - start] += scores.max()
        scores[~canvas.masked[start : canvas.decoded_end]] = -np.inf
        size = len(self.candidates)
        scores[(last // size + 1) * size :] = -np.inf
        return best(scores, min(self.current_k, len(masked))) + start


def _choose_next(waiting: Sequence[tuple[D2, Canvas]]) -> None:
    """What the next pass of each of them computes."""
    certainties = response_certainties([canvas for _, canvas in waiting], [policy.sigma for policy, _ in waiting])
    others = [
        ~policy.first_stage(canvas, certainty)[: policy.known]
        for (policy, canvas), certainty in zip(waiting, certainties, strict=True)
    ]
    flows = nuclei([policy.importance for policy, _ in waiting], [policy.rollout_p for policy, _ in waiting], others)
    for (policy, canvas), positions in zip(waiting, flows, strict=True):
        policy.second_stage(canvas, positions)


def fill_gaps(chosen: np.ndarray, width: int) -> None:
    """Choose what lies between two neighbouring chosen positions at most `width` apart, in place."""
    at = np.flatnonzero(chosen)
    for left, right in zip(at[:-1], at[1:], strict=True):
        if right - left <= width:
            chosen[left:right] = True
