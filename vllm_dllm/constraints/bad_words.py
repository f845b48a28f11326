"""Words of several tokens that are not to stand in the response."""

from collections.abc import Iterable, Sequence

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.constraints.base import Constraint


class BadWords(Constraint):
    """At each place of the response where all but one token of a word are known, the missing one is barred.

    Known tokens are given or unmasked, in whatever order. Of the tokens that one pass would fix together, those that
    complete a word stay masked, and are barred in the next.

        word   7 8 9       response   _ 7 8 _ _ 9 _     8 9 _, 7 8 _ and so on, at every offset
                                          ^ position 3: 9 is barred
    """

    asked_by = "bad_words"

    def __init__(self, words: Iterable[Sequence[int]]):
        """`words` of two tokens or more."""
        self.words = [list(word) for word in words]
        self.longest = max(map(len, self.words), default=0)
        self.having: dict[int, list[list[int]]] = {}  # the words that a token is in
        for word in self.words:
            for token in set(word):
                self.having.setdefault(token, []).append(word)
        self.fixed: dict[int, int] = {}  # what the pass being finished has fixed so far, by position
        self.passes = 0  # finished when `fixed` was begun

    def edit(self, canvas, reads, edits):
        start, stop = canvas.prompt_len, canvas.response_end
        tokens = np.where(canvas.masked[start:stop], -1, canvas.tokens[start:stop])
        known = set(tokens.tolist())
        for word in self.words:
            if len(word) > len(tokens) or sum(token not in known for token in word) > 1:
                continue  # most words, most of the time
            at = np.lib.stride_tricks.sliding_window_view(tokens, len(word))
            wanted = np.asarray(word, np.int32)
            missing = at != wanted
            places = np.flatnonzero(missing.sum(1) == 1)
            which = missing[places].argmax(1)
            open_ = at[places, which] == -1
            positions = start + (places + which)[open_]
            there = np.isin(positions, reads)
            if there.any():
                edits.barred.append((np.searchsorted(reads, positions[there]), wanted[which[open_][there]]))

    def admits(self, canvas, position, token):
        words = self.having.get(token)
        if not words or position >= canvas.response_end:  # a word that reaches beyond the response is not in it
            return True
        known = self._known(canvas, position)
        known[position] = token
        for word in words:
            for offset in (i for i, own in enumerate(word) if own == token):
                first = position - offset
                if all(known.get(first + i) == own for i, own in enumerate(word)):
                    return False
        return True

    def fix(self, canvas, position, token):
        self._begin(canvas)
        self.fixed[position] = token

    def _begin(self, canvas: Canvas) -> None:
        if self.passes != canvas.passes:
            self.passes, self.fixed = canvas.passes, {}

    def _known(self, canvas: Canvas, position: int) -> dict[int, int]:
        """The known tokens of the response near `position`, by position."""
        self._begin(canvas)
        low = max(canvas.prompt_len, position - self.longest + 1)
        high = min(canvas.response_end, position + self.longest)
        near = low + np.flatnonzero(~canvas.masked[low:high])
        known = dict(zip(near.tolist(), canvas.tokens[near].tolist(), strict=True))
        return known | {p: t for p, t in self.fixed.items() if low <= p < high}
