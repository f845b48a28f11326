"""A request's canvas: its token ids, which of them are still masked, and when each was unmasked.

      prompt                 response (gen_length positions, cut into blocks of block_length)
    | t t t t t t t t t t | t t t t t t | t m t t m m | m m m m m m | m m m |
                            done          active block                last, shorter block
    0                     prompt_len                                         length

Positions count from the canvas's start; a "response position" counts from the response's start.
"""

import numpy as np

NEVER = -1


class Canvas:
    """Token ids (int32, `length` of them) and the state of the response.

    Knows nothing of caches or of vLLM. A prompt token is never masked, whatever its id.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        gen_length: int,
        block_length: int,
        mask_id: int,
        window_length: int | None = None,
        eos_id: int | None = None,
    ):
        """`window_length`: candidates are the first masked positions, this many, instead of the active
        block's; then masked positions after the first unmasked `eos_id` are dropped."""
        if window_length is not None:
            block_length = gen_length
        self.window_length = window_length
        self.eos_id = eos_id
        self.end = gen_length  # response positions from here on are dropped
        self.prompt_len = len(prompt_ids)
        self.gen_length = gen_length
        self.block_length = min(block_length, gen_length)
        self.length = self.prompt_len + gen_length
        self.tokens = np.full(self.length, mask_id, dtype=np.int32)
        self.tokens[: self.prompt_len] = prompt_ids
        self.masked = np.ones(gen_length, dtype=bool)
        # the pass in which a response position was unmasked
        self.unmasked_in = np.full(gen_length, NEVER, dtype=np.int32)
        self.passes = 0  # passes observed so far
        self.block = 0
        self._block_began = 0  # the pass that was the active block's first
        self._prefix = 0

    @property
    def response(self) -> np.ndarray:
        """The response's token ids, masks included. A view."""
        return self.tokens[self.prompt_len :]

    @property
    def num_blocks(self) -> int:
        return -(-self.gen_length // self.block_length)

    @property
    def block_range(self) -> tuple[int, int]:
        """Response positions [start, stop) of the active block."""
        start = self.block * self.block_length
        return start, min(start + self.block_length, self.gen_length)

    @property
    def block_passes(self) -> int:
        """Passes observed since the active block became active."""
        return self.passes - self._block_began

    def just_unmasked(self) -> np.ndarray:
        """Which response positions the last pass unmasked: a boolean for each."""
        return ~self.masked & (self.unmasked_in == self.passes - 1)

    def candidates(self) -> np.ndarray:
        """The response positions that may be unmasked now: those masked in the active block (or the window), ascending."""
        if self.window_length is not None:
            return np.flatnonzero(self.masked[: self.end])[: self.window_length]
        start, stop = self.block_range
        return start + np.flatnonzero(self.masked[start:stop])

    @property
    def done(self) -> bool:
        return self.block >= self.num_blocks

    @property
    def prefix(self) -> int:
        """How many response positions are final, counted from the response's start up to the first mask."""
        while self._prefix < self.gen_length and not self.masked[self._prefix]:
            self._prefix += 1
        return self._prefix

    def unmask(self, positions: np.ndarray, tokens: np.ndarray) -> None:
        """Fix `tokens` at response `positions` and close the pass. Either may be empty."""
        self.response[positions] = tokens
        self.masked[positions] = False
        self.unmasked_in[positions] = self.passes
        self.passes += 1
        if self.window_length is not None and self.eos_id is not None:
            ends = positions[tokens == self.eos_id]
            self.end = min(self.end, int(ends.min()) + 1 if len(ends) else self.end)
        while not self.done and not self.masked[slice(*self.block_range)].any():
            self.block += 1
            self._block_began = self.passes
