"""A running request, as the scheduler keeps it."""

from dataclasses import dataclass, field

import numpy as np

from vllm_dllm.decoding import Decoding
from vllm_dllm.passes import Pass
from vllm_dllm.scoring import Scoring

Task = Decoding | Scoring


@dataclass(eq=False)
class Running:
    """What a running request does, and where its next pass stands."""

    decoding: Task
    pages: list[list[int]]  # of its canvas and, with guidance, of its second one: the same until it ends
    shares: bool = False  # others may find its pages once they are settled
    then: Decoding | None = None  # of a request whose prompt is scored first
    prompt: Scoring | None = None  # that, once it is done, until its first token takes it along
    before: int = 0  # its passes
    planned: Pass | None = None  # the pass that waits for a step
    in_flight: bool = False  # a pass is in a step whose output has not come back
    left_out: int = 0  # steps in a row that had no room for the pass
    weights: int | None = None  # how often the worker's weights had been changed when all was computed last
    tables: list[np.ndarray] = field(init=False)  # `pages`, int32

    def __post_init__(self) -> None:
        self.tables = [np.asarray(own, np.int32) for own in self.pages]

    @property
    def passes(self) -> int:
        """Finished so far."""
        return self.before + self.decoding.passes

    def goes_on(self) -> bool:
        """Whether it decodes, now that it has scored."""
        if self.then is None:
            return False
        assert isinstance(self.decoding, Scoring)
        self.before = self.decoding.passes
        self.prompt, self.decoding, self.then = self.decoding, self.then, None
        return True

    def mixed(self, done: Pass, weights: int) -> bool:
        """Whether the pass attended to keys and values that other weights had made. A full pass attends to its own; but
        what adds up to one number is to be read with the same ones."""
        others = isinstance(self.decoding, Scoring) and self.weights not in (None, weights)
        if done.full:
            self.weights = weights
        return others or self.weights != weights

    def urgency(self, planned: Pass) -> tuple[int, bool, int]:
        """Of a pass, where not all have room: what is greater goes first."""
        return self.left_out, len(planned.reads) > 0, self.decoding.oldest_mark

    def within(self, budget: int, planned: Pass, chunked: bool) -> Pass | None:
        """A smaller pass in place of one that is over the budget; None if it fits, or must not be smaller. `chunked`:
        whether a prompt may be computed in parts."""
        if planned.most_tokens <= budget:
            return None
        shorter = None
        if chunked and isinstance(self.decoding, Decoding):
            shorter = self.decoding.shorten(planned, budget)
        return shorter or self.decoding.postpone(planned)
