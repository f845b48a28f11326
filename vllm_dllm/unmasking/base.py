"""An unmasking rule: which of the candidates become tokens, once a pass is done."""

from typing import ClassVar

import numpy as np
import torch

from vllm_dllm.canvas import Canvas
from vllm_dllm.messages import Observation
from vllm_dllm.options import Option


class UnmaskingRule:
    """One request's rule: plain Python over a canvas. It may keep state between passes.

    `option` is the setting that chooses it; its value is the constructor's first argument. `options` are further
    settings, which go with this rule only: the constructor's keyword arguments. `score` is what the request ranks by.
    """

    option: ClassVar[Option]
    options: ClassVar[tuple[Option, ...]] = ()
    scores: ClassVar[tuple[str, ...]] = ("confidence", "margin", "entropy", "random")  # what it can rank by
    needs_entropy: ClassVar[bool] = False
    needs_blocks: ClassVar[bool] = False  # it cannot go with a sliding window, nor with several blocks at once
    counts_response_blocks: ClassVar[bool] = False  # its value is for all blocks of the response together
    part: ClassVar[str] = "response"  # `top`'s: what it ranks, `response`, `canvas` or `block`
    score: str = "confidence"

    @property
    def draws(self) -> bool:
        """Whether it draws positions, so that `select` needs a generator."""
        return False

    def check(self, gen_length: int, num_blocks: int, block_length: int) -> None:
        """Raise SettingError if the rule does not fit a canvas of this kind. Called before the first pass."""

    def number(self, canvas: Canvas, ranked: np.ndarray) -> int:
        """How many of the candidates to unmask, the best ones; `ranked` are their scores, the largest first.

        Asked once in each pass of a rule that is no more than this number. Others have a `select` of their own.
        """
        raise NotImplementedError

    def select(
        self, canvas: Canvas, scores: np.ndarray, seen: Observation | None, rng: np.random.Generator | None
    ) -> np.ndarray:
        """The canvas positions to unmask, out of `canvas.candidates`.

        `scores` is float32 (or float64) with one entry for each canvas position, -inf where it is no candidate.
        `seen` is None where the policy asks before the pass: rules whose choice hangs on it refuse that.
        `rng` is this request's, there if its settings draw positions.
        """
        ranked = -np.sort(-scores[canvas.candidates])
        return top(canvas, scores, self.number(canvas, ranked), self.part)

    @classmethod
    def ranks(cls) -> bool:
        """Whether it is no more than a number of the best candidates."""
        return cls.select is UnmaskingRule.select


def top(canvas: Canvas, scores: np.ndarray, n: int, part: str = "response") -> np.ndarray:
    """The `n` positions with the largest scores.

    Ties fall as `torch.topk` lets them fall on the CPU, because the public codes rank with it. Its choice depends on
    the array's length: LLaDA and Dream rank the whole `canvas`, Fast-dLLM and d2Cache the `response`, SDAR the
    active `block`.
    """
    start, stop = ranked_part(canvas, part)
    return best(scores[start:stop], n) + start


def best(scores: np.ndarray, n: int) -> np.ndarray:
    """The places of the `n` largest scores, as `top` ranks them."""
    at = (scores > -np.inf).nonzero()[0]
    ranked = scores[at]
    order = np.argsort(-ranked)
    first = ranked[order[: n + 1]]
    if n <= len(at) and (first[:-1] > first[1:]).all():  # no ties among the n, nor with the next one
        return at[order[:n]]
    return as_torch_ranks(scores, n)


def ranked_part(canvas: Canvas, part: str) -> tuple[int, int]:
    """[start, stop) of the canvas positions that `top` ranks."""
    if part == "block":
        return canvas.block
    return (0, canvas.length) if part == "canvas" else (canvas.prompt_len, canvas.decoded_end)


def as_torch_ranks(scores: np.ndarray, n: int) -> np.ndarray:
    """The places [..., n] of the largest of the `scores` [..., length], equal ones as `torch.topk` has them."""
    return torch.topk(torch.from_numpy(scores), n).indices.numpy()
