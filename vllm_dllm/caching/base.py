"""A caching policy: which positions the next pass computes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vllm_dllm.caching.pages import PageLedger
from vllm_dllm.canvas import Canvas
from vllm_dllm.observation import Drift, Observation
from vllm_dllm.options import Option


@dataclass
class Plan:
    """One pass of one request."""

    queries: np.ndarray  # int32 canvas positions to compute, ascending
    reads: np.ndarray  # response positions whose rows are read, ascending; their rows are among the queries
    full: bool  # the whole canvas
    stale_pages: int  # pages recomputed because they were marked stale
    drift: Drift | None = None  # the test that may widen the pass to the whole canvas

    @property
    def most_tokens(self) -> int:
        """The positions that the pass may come to compute, for the step's token budget."""
        return len(self.queries) if self.drift is None else len(self.drift.masked)


class CachePolicy(ABC):
    """One request's policy: plain Python over a canvas and its pages. It may keep state between passes.

    A pass computes `positions(canvas)` and every page that is stale. A policy marks pages stale before a
    pass, in `mark`, or after one, in `observe`; what is recomputed is fresh again without its doing. All
    pages are stale before the first pass, so that is full under every policy.

    Its options' names are its constructor's arguments. `row_shift` is the model's: the prediction for
    position i is read at row i + row_shift (0 for LLaDA, -1 for Dream).
    """

    name: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = ()
    needs_entropy: ClassVar[bool] = False  # `observe` reads `seen.entropy`
    needs_hidden: ClassVar[bool] = False  # the worker has to keep every layer's inputs
    needs_rollout: ClassVar[bool] = False  # `observe` reads `seen.importance`
    double: ClassVar[bool] = False  # its source ranks LLaDA's fixed steps by a softmax in float64
    looks_ahead: ClassVar[bool] = False  # `positions` reads `coming`
    has_window: ClassVar[bool] = False  # candidates are the first `window_length` masked positions, not a block's
    window_length: int | None = None

    def __init__(self, row_shift: int):
        self.row_shift = row_shift
        # with `looks_ahead`: the response positions that this pass will unmask, in the rule's order
        self.coming = np.empty(0, np.int64)

    @classmethod  # noqa: B027 (most policies go with everything)
    def check(cls, rule: str, score: str, row_shift: int) -> None:
        """Raise SettingError if the policy cannot go with this unmasking rule, score or model."""

    def mark(self, canvas: Canvas, pages: PageLedger) -> None:  # noqa: B027
        """Mark the pages that the next pass has to recompute. Called once for each pass, before `positions`."""

    @abstractmethod
    def positions(self, canvas: Canvas) -> np.ndarray:
        """int32 canvas positions that the next pass computes besides stale pages, ascending.

        Among them are the rows of `canvas.candidates()` (of `coming`, for a policy that looks ahead).
        """

    def drift(self, canvas: Canvas) -> Drift | None:  # noqa: B027
        """The drift test of the next pass, for a policy that has one. Called after `positions`."""

    def reads(self, canvas: Canvas) -> np.ndarray:
        """The response positions whose rows the next pass reads, ascending; the rows are computed in it."""
        return np.sort(self.coming) if self.looks_ahead else canvas.candidates()

    def complete(self, canvas: Canvas, seen: Observation) -> Observation:
        """What the rule sees of the pass; `seen` unless the policy adds to it."""
        return seen

    def observe(self, canvas: Canvas, pages: PageLedger, seen: Observation, unmasked: np.ndarray) -> None:  # noqa: B027
        """Told after each pass what it read and which response positions were unmasked."""

    def signals(self, seen: Observation, unmasked: np.ndarray) -> dict[str, Any]:
        """What the trace shows of the pass besides its positions; `unmasked` are places in `seen`. The same
        keys in every pass."""
        return {}

    def rows(self, canvas: Canvas, positions: np.ndarray) -> np.ndarray:
        """The canvas rows that predict response `positions`."""
        return (positions + (canvas.prompt_len + self.row_shift)).astype(np.int32)
