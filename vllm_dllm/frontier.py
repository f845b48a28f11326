"""The frontier: which masked positions of a canvas may be unmasked now, and how far it has to exist for that.

A block, several blocks, or a sliding window; with a horizon the canvas grows before it:

      prompt        done        active block    horizon      does not exist yet
    | t t t t t t | t t t t t | t m t m m m m | m m m m m |  .  .  .  .  .  .  .
"""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np


class Positions(Protocol):
    """What a frontier sees of its canvas (canvas.py)."""

    prompt_len: int
    gen_length: int
    response_end: int
    length: int
    end: int
    dropped_from: int
    computed: int
    positions: np.ndarray
    masked: np.ndarray
    passes: int

    def open(self) -> np.ndarray:
        """The masked positions that exist and are to be unmasked some time, ascending."""


class Frontier(ABC):
    """Where one request's candidates come from. Positions are canvas positions.

    `begin` and `stop` bound the active block (or blocks), `number` counts the blocks before it, `began` is the number of
    passes that were finished when it became active, `first_stop` is where it, the first of several, ends. `horizon`: how many positions exist behind the active block
    (or window); None: all of them.
    """

    count: int  # blocks in all
    begin: int
    stop: int
    first_stop: int
    number = 0
    began = 0

    def __init__(self, horizon: int | None = None):
        self.horizon = horizon

    @abstractmethod
    def start(self, canvas: Positions) -> None:
        """Called once, when `canvas` has been made."""

    def advance(self, canvas: Positions) -> None:  # noqa: B027 (a window has nothing to do)
        """Called when a pass has unmasked something, or nothing."""

    @abstractmethod
    def candidates(self, canvas: Positions) -> np.ndarray:
        """int64 masked positions that may be unmasked now, ascending."""

    @abstractmethod
    def ahead(self, canvas: Positions) -> int:
        """The position behind the active block's (or window's) last one."""

    @abstractmethod
    def opened_blocks(self, canvas: Positions) -> list[tuple[int, int]]:
        """[start, stop) of each block, from the first on, whose positions are candidates now or were before."""

    def extent(self, canvas: Positions) -> int:
        """How far the canvas exists now. Text behind the response comes with the response's last position."""
        if self.horizon is None:
            return canvas.length
        end = self.ahead(canvas) + self.horizon
        return canvas.length if end >= canvas.response_end else max(end, canvas.end)


class Blocks(Frontier):
    """The response cut into blocks of `block_length` positions, given ones included, decoded left to right.

    A block without masked positions is passed over. The last one may be shorter.
    """

    def __init__(self, block_length: int, horizon: int | None = None):
        super().__init__(horizon)
        self.block_length = block_length

    def start(self, canvas):
        self.block_length = min(self.block_length, canvas.gen_length)
        self.count = num_blocks(canvas.gen_length, self.block_length)
        self._to(canvas, 0)
        self.advance(canvas)

    def advance(self, canvas):
        while self.number < self.count and not np.count_nonzero(canvas.masked[self.begin : self.first_stop]):
            self._to(canvas, self.number + 1)

    def _to(self, canvas: Positions, number: int) -> None:
        self.number = number
        self.began = canvas.passes
        self.begin = canvas.prompt_len + number * self.block_length
        self.first_stop = self.stop = min(self.begin + self.block_length, canvas.response_end)

    def candidates(self, canvas):
        stop = min(self.stop, canvas.end, canvas.dropped_from)
        return canvas.positions[self.begin : stop][canvas.masked[self.begin : stop]]

    def ahead(self, canvas):
        return self.stop

    def opened_blocks(self, canvas):
        starts = range(canvas.prompt_len, self.stop, self.block_length)
        return [(start, min(start + self.block_length, self.stop)) for start in starts]


class MultiBlock(Blocks):
    """Blocks of which several are active at once: those from the first with masked positions to the last that was opened.

        prompt         done        active, opened one after the other        not opened yet
      | t t t t t t | t t t t t | t t m t m | t m m m t | m m m m m |  m m m m m | ...

    A pass opens at most one block more: the next, when the share of the last one that is known has reached
    `add_threshold`. Source: d3LLM (arXiv:2601.07568), hao-ai-lab/d3LLM, where blocks are `fully activated` besides, by a
    second threshold; the first of them with masked positions, for which alone that counts, always is.
    """

    def __init__(self, block_length: int, add_threshold: float, horizon: int | None = None):
        super().__init__(block_length, horizon)
        self.add_threshold = add_threshold
        self.opened = 1

    def advance(self, canvas):
        super().advance(canvas)
        last = canvas.prompt_len + (self.opened - 1) * self.block_length
        length = min(self.block_length, canvas.response_end - last)
        masked = int(np.count_nonzero(canvas.masked[last : last + length]))
        if 1 - masked / length >= self.add_threshold:
            self.opened += 1
        self.opened = min(max(self.opened, self.number + 1), self.count)
        self.stop = min(canvas.prompt_len + self.opened * self.block_length, canvas.response_end)


class Window(Frontier):
    """The first `length` masked positions of the response, wherever they are. The response is one block."""

    def __init__(self, length: int, horizon: int | None = None):
        super().__init__(horizon)
        self.length = length

    def start(self, canvas):
        self.count = 1
        self.begin, self.stop = canvas.prompt_len, canvas.response_end
        self.first_stop = self.stop

    def candidates(self, canvas):
        return canvas.open()[: self.length]

    def ahead(self, canvas):
        masked = np.flatnonzero(canvas.masked[: canvas.dropped_from])[: self.length]
        return int(masked[-1]) + 1 if len(masked) else canvas.prompt_len

    def opened_blocks(self, canvas):
        return [(self.begin, self.stop)]


def num_blocks(gen_length: int, block_length: int) -> int:
    return -(-gen_length // min(block_length, gen_length))
