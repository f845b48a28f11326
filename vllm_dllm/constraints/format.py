"""A guaranteed format: each pass may fix such tokens alone with which some valid response remains."""

from collections.abc import Callable

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.constraints.base import Constraint
from vllm_dllm.formats.automaton import ANY, WORDS, Automaton, StateSet
from vllm_dllm.messages import Admitted


class Format(Constraint):
    """The response is a word of `automaton` and then end tokens, or a word of exactly so many tokens.

    Over the whole response, whatever exists of the canvas: `ahead[i]` are the states that can be reached at its
    position i, over the fixed tokens and over any token where masked; `behind[i]` those from which the rest can still
    be completed. A token is admitted at i if it leads from `ahead[i]` to `behind[i + 1]`.
    """

    asked_by = "structured_outputs"

    def __init__(self, automaton: Automaton, key: str):
        """`key` names the automaton's classes of tokens, which the worker holds."""
        self.automaton = automaton
        self.key = key
        self.kinds: list[int] = []  # of each response position: its token's class, or ANY or WORDS

    def start(self, canvas: Canvas) -> bool:
        """Called with the canvas as it is before the first pass. Whether some valid response has its tokens."""
        automaton, n = self.automaton, canvas.gen_length
        given = np.flatnonzero(canvas.given[canvas.prompt_len :])
        last = int(given[-1]) if len(given) else -1  # in front of given text no answer ends
        classes = automaton.class_of[canvas.response].tolist()
        masked = canvas.masked[canvas.prompt_len : canvas.response_end].tolist()
        self.kinds = [
            (WORDS if i < last else ANY) if is_masked else kind
            for i, (kind, is_masked) in enumerate(zip(classes, masked, strict=True))
        ]
        self.ahead = Chain(automaton.first, n, lambda states, i: automaton.after(states, self.kinds[i]))
        whole = automaton.whole if last < n else automaton.words
        self.behind = Chain(whole, n, lambda states, i: automaton.before(states, self.kinds[n - 1 - i]))
        return automaton.meet(automaton.first, self.behind.at(n))

    def _around(self, i: int) -> tuple[StateSet, StateSet]:
        """The states in front of position i, and those behind it."""
        return self.ahead.at(i), self.behind.at(len(self.kinds) - 1 - i)

    def edit(self, canvas, reads, edits):
        if not self.kinds:
            self.start(canvas)
        lines = np.flatnonzero(canvas.masked[reads] & (reads < canvas.response_end))
        rows: dict[int, np.ndarray] = {}
        of_line = []
        for i in (reads[lines] - canvas.prompt_len).tolist():
            row = self.automaton.admitted(*self._around(i), end=self.kinds[i] == ANY)
            rows.setdefault(id(row), row)
            of_line.append(id(row))
        if rows:
            number = {key: n for n, key in enumerate(rows)}
            which = np.asarray([number[key] for key in of_line], np.int32)
            edits.admitted = Admitted(self.key, lines, which, np.stack(list(rows.values())))

    def admits(self, canvas, position, token):
        if position >= canvas.response_end:
            return True
        ahead, behind = self._around(position - canvas.prompt_len)
        return self.automaton.meet(self.automaton.after(ahead, int(self.automaton.class_of[token])), behind)

    def fix(self, canvas, position, token):
        if position >= canvas.response_end:
            return
        i = position - canvas.prompt_len
        self.kinds[i] = int(self.automaton.class_of[token])
        self.ahead.changed(i)
        self.behind.changed(len(self.kinds) - 1 - i)


class Chain:
    """Sets of states, one behind the other, made when they are asked for: number i + 1 is `step(number i, i)`.

    Once a step has changed, what lies behind it is made anew, as far as it is asked for and until it is as it was.
    """

    def __init__(self, first: StateSet, steps: int, step: Callable[[StateSet, int], StateSet]):
        self._sets: list[StateSet | None] = [first] + [None] * steps
        self._step = step
        self._made = 0  # the sets up to here are as they should be
        self._known = 0  # those up to here were made some time; where they go on from the right one, they are right,
        self._last_change = 0  # if no step behind this one has changed since

    def at(self, i: int) -> StateSet:
        while self._made < i:
            made = self._made
            found = self._step(self._sets[made], made)  # type: ignore[arg-type]
            self._made += 1
            if found is self._sets[made + 1] and made >= self._last_change:
                self._made = max(self._made, self._known)
            self._sets[made + 1] = found
            self._known = max(self._known, self._made)
        return self._sets[i]  # type: ignore[return-value]

    def changed(self, i: int) -> None:
        """Step i is another one now."""
        if i < self._made:  # what lies behind `made` was made from another set than is there now
            self._known, self._made, self._last_change = self._made, i, i
        elif i < self._known:
            self._last_change = max(self._last_change, i)
