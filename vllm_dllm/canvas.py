"""A request's canvas: its token ids, which of them are still masked, and when each was unmasked.

      prompt                 response (gen_length positions)                  suffix
    | t t t t t t t t t t | t t t t G t | t m G m m m | m m m m m G | m m m | G G G |
                            done          active block                last, shorter block
    0                     prompt_len                                 response_end  length

    t  token        G  given: fixed from the start, as the prompt is        m  masked

Positions count from the canvas's start, everywhere; only tokens that leave for the user are numbered within the
response. What lies at `end` and behind it does not exist yet: it is neither computed nor attended to. Where blocks are
counted from the canvas's start, the last one may reach beyond the response: its **overflow** is decoded with it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vllm_dllm.frontier import Frontier

NEVER = -1


class Canvas:
    """Token ids (int32, `length` of them) and the state of each position.

    Knows nothing of caches or of vLLM. A prompt token is never masked, whatever its id.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        gen_length: int,
        mask_id: int,
        frontier: Frontier,
        given: Mapping[int, int] | None = None,
        suffix_ids: Sequence[int] = (),
        overflow: int = 0,
        drop_behind: frozenset[int] = frozenset(),
        drop_once: bool = False,
        fill_behind: frozenset[int] = frozenset(),
    ):
        """`given`: tokens that are fixed from the start, by position in the response part of the canvas.
        `suffix_ids`: text behind the response; `overflow`: so many masked positions behind it, in their place.
        `drop_behind`: once one of these tokens is unmasked, masked positions behind it are dropped, and more when one
        further left is; with `drop_once` no more. `fill_behind`: once one of these is, all behind it that is not given
        becomes the same token."""
        self.prompt_len = len(prompt_ids)
        self.gen_length = gen_length
        self.response_end = self.prompt_len + gen_length
        self.decoded_end = self.response_end + overflow  # behind the last position that is decoded
        self.length = self.decoded_end + len(suffix_ids)
        self.positions = np.arange(self.length)
        self.tokens = np.full(self.length, mask_id, np.int32)
        self.tokens[: self.prompt_len] = prompt_ids
        self.given = np.ones(self.length, bool)
        self.given[self.prompt_len : self.decoded_end] = False
        self.tokens[self.decoded_end :] = suffix_ids
        for position, token in (given or {}).items():
            self.tokens[position] = token
            self.given[position] = True
        self.masked = ~self.given
        self.end = self.prompt_len
        self.computed = 0  # positions before this one have been computed as they are now
        self.drop_behind = drop_behind
        self.drop_once = drop_once
        self.fill_behind = fill_behind
        self.dropped_from = self.length  # masked positions from here on stay masked
        # the pass in which a position was unmasked
        self.unmasked_in = np.full(self.length, NEVER, np.int32)
        self.just_unmasked = np.empty(0, np.int64)  # the positions that the last pass unmasked, ascending
        self.passes = 0  # finished so far
        self.frontier = frontier
        self._candidates: np.ndarray | None = None
        self._final = self.prompt_len
        frontier.start(self)
        self.end = frontier.extent(self)

    @property
    def response(self) -> np.ndarray:
        """The response's token ids, masks included. A view."""
        return self.tokens[self.prompt_len : self.response_end]

    @property
    def decoded(self) -> np.ndarray:
        """The response's token ids and the overflow's. A view."""
        return self.tokens[self.prompt_len : self.decoded_end]

    @property
    def block(self) -> tuple[int, int]:
        """[start, stop) of the active block: with a window, the response."""
        return self.frontier.begin, self.frontier.stop

    @property
    def block_passes(self) -> int:
        """Passes finished since the active block became active."""
        return self.passes - self.frontier.began

    @property
    def candidates(self) -> np.ndarray:
        """The positions that may be unmasked now, ascending. Not to be written to."""
        if self._candidates is None:
            self._candidates = self.frontier.candidates(self)
        return self._candidates

    def open(self) -> np.ndarray:
        """The masked positions that exist and are to be unmasked some time, ascending."""
        return self.masked[: min(self.end, self.dropped_from)].nonzero()[0]

    @property
    def done(self) -> bool:
        return not self.masked[: self.dropped_from].any()

    @property
    def final(self) -> int:
        """How many response tokens are final, counted from the response's start up to the first mask."""
        while self._final < self.response_end and not self.masked[self._final]:
            self._final += 1
        return self._final - self.prompt_len

    def unmask(self, positions: np.ndarray, tokens: np.ndarray) -> None:
        """Fix `tokens` at `positions` (ascending) and close the pass. Either may be empty."""
        self.tokens[positions] = tokens
        self.masked[positions] = False
        self.unmasked_in[positions] = self.passes
        self.just_unmasked = positions
        self._drop_and_fill(positions, tokens)
        self.passes += 1
        self.frontier.advance(self)
        self.settle(self.computed)

    def settle(self, computed: int) -> None:
        """All before `computed` has been computed as it is now: see how far the canvas exists for the next pass."""
        self.computed = computed
        self._candidates = None
        self.end = self.frontier.extent(self)

    def _drop_and_fill(self, positions: np.ndarray, tokens: np.ndarray) -> None:
        """What becomes of the positions behind an end token that has just been unmasked."""
        if self.drop_behind:
            ends = positions[np.isin(tokens, list(self.drop_behind))]
            if len(ends):
                self.dropped_from = min(self.dropped_from, int(ends[0]) + 1)
                self.drop_behind = frozenset() if self.drop_once else self.drop_behind
        if self.fill_behind:
            ends = positions[np.isin(tokens, list(self.fill_behind))]
            if len(ends):
                behind = np.arange(ends[0] + 1, self.response_end)
                behind = behind[~self.given[behind]]
                filled = behind[self.masked[behind]]
                self.tokens[behind] = self.tokens[ends[0]]
                self.masked[filled] = False
                self.unmasked_in[filled] = self.passes
                self.just_unmasked = np.union1d(positions, filled[filled < self.end])  # the others were never computed
