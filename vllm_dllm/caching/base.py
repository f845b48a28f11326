"""A caching policy: which positions the next pass computes."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from vllm_dllm.caching.pages import PageLedger
from vllm_dllm.canvas import Canvas
from vllm_dllm.messages import Observation
from vllm_dllm.options import Option
from vllm_dllm.probes.base import Probe


class CachePolicy(ABC):
    """One request's policy: plain Python over a canvas and its pages. It may keep state between passes.

    A pass computes `positions(canvas)`, every page that is stale, and what was never computed. A policy marks pages
    stale before a pass, in `mark`, or after one, in `observe`; what is recomputed is fresh again without its doing.
    All pages are stale before the first pass, so that is full under every policy.

    Its options' names are its constructor's arguments. `row_shift` is the model's: the prediction for
    position i is read at row i + row_shift (0 for LLaDA, -1 for Dream).
    """

    name: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = ()
    reasons: ClassVar[tuple[str, ...]] = ()  # for which it marks pages stale
    attention: ClassVar[tuple[str, ...]] = (
        "full",
    )  # of the models that it is for: every position sees all, or its blocks
    commits: ClassVar[bool] = False  # with blocks: a finished one is computed once more, to be kept
    probe_class: ClassVar[type[Probe] | None] = None  # what it may have measured in the attention
    needs_entropy: ClassVar[bool] = False  # `observe` reads `seen.entropy`
    needs_blocks: ClassVar[bool] = False  # it cannot go with a sliding window
    needs_one_block: ClassVar[bool] = False  # nor with several blocks at once
    window_length: ClassVar[int | None] = None  # it always has a window, this long unless set
    drops_behind_end: ClassVar[bool] = False  # masked positions behind an end token are always dropped
    drops_once: bool = False  # and no more of them when one further left is unmasked later
    looks_ahead: ClassVar[bool] = False  # `positions` reads `coming`
    steps_rank_by: ClassVar[str | None] = None  # what its source ranks LLaDA's fixed steps by, for `confidence`
    example: ClassVar[dict[str, Any]] = {}  # settings without which it cannot be tried
    defaults: ClassVar[dict[str, Any]] = {}  # by name, of options that have another default with other policies

    def __init__(self, row_shift: int):
        self.row_shift = row_shift
        # with `looks_ahead`: the canvas positions that this pass will unmask, in the rule's order
        self.coming = np.empty(0, np.int64)

    @classmethod
    def needs_hidden(cls) -> bool:
        """Whether the worker has to keep every layer's inputs for it."""
        return cls.probe_class is not None and cls.probe_class.needs_hidden

    @classmethod  # noqa: B027 (most policies go with everything)
    def check(cls, rule: str, score: str, row_shift: int) -> None:
        """Raise SettingError if the policy cannot go with this unmasking rule, score or model."""

    def mark(self, canvas: Canvas, pages: PageLedger) -> None:  # noqa: B027
        """Mark the pages that the next pass has to recompute. Called once for each pass, before `positions`."""

    @abstractmethod
    def positions(self, canvas: Canvas) -> np.ndarray:
        """Canvas positions that the next pass computes besides stale pages, ascending, below `canvas.end`.

        Among them are the rows of `canvas.candidates` (of `coming`, for a policy that looks ahead).
        """

    def probe(self, canvas: Canvas) -> Probe | None:  # noqa: B027
        """What the next pass is to measure in the attention. Called after `positions`."""

    def reads(self, canvas: Canvas) -> np.ndarray:
        """The canvas positions whose predictions the next pass reads, ascending; their rows are computed in it."""
        return np.sort(self.coming) if self.looks_ahead else canvas.candidates

    def complete(self, canvas: Canvas, seen: Observation) -> Observation:
        """What the rule sees of the pass; `seen` unless the policy adds to it."""
        return seen

    def observe(self, canvas: Canvas, pages: PageLedger, seen: Observation, unmasked: np.ndarray) -> None:  # noqa: B027
        """Told after each pass what it read and which canvas positions were unmasked."""

    def waits(self, canvas: Canvas, pages: PageLedger) -> bool:
        """Whether a response whose tokens are all there waits for another pass."""
        return False

    def start_over(self) -> None:  # noqa: B027
        """Told, before `observe`, that nothing of what the rule selected could be fixed: the next pass must read all
        candidates. Most policies do in every pass."""

    def signals(self, seen: Observation, unmasked: np.ndarray) -> dict[str, Any]:
        """What the trace shows of the pass besides its positions; `unmasked` are places in `seen`. The same
        keys in every pass."""
        return {}

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The canvas rows that predict `positions`."""
        return positions + self.row_shift if self.row_shift else positions
