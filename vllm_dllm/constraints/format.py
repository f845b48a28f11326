"""A guaranteed format: each pass may fix such tokens alone with which some valid response remains."""

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.constraints.base import Constraint
from vllm_dllm.formats.automaton import ANY, WORDS, Automaton, StateSet
from vllm_dllm.messages import Admitted


class Format(Constraint):
    """The response is a word of `automaton` and then end tokens, or a word of exactly so many tokens.

    Over the whole response, whatever exists of the canvas: `ahead[i]` are the states that can be reached at its
    position i, over the fixed tokens and over any token where masked; `behind[i]` those from which the rest can still
    be completed. A token is admitted at i if it leads from `ahead[i]` to `behind[i + 1]`. Only what a new token changes
    is computed anew.
    """

    asked_by = "structured_outputs"

    def __init__(self, automaton: Automaton, key: str):
        """`key` names the automaton's classes of tokens, which the worker holds."""
        self.automaton = automaton
        self.key = key
        self.kinds: list[int] = []  # of each response position: its token's class, or ANY or WORDS
        self.ahead: list[StateSet] = []
        self.behind: list[StateSet] = []

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
        self.ahead = [automaton.first] * (n + 1)
        self.behind = [automaton.whole if last < n else automaton.words] * (n + 1)
        for i in range(n):
            self.ahead[i + 1] = automaton.after(self.ahead[i], self.kinds[i])
        for i in reversed(range(n)):
            self.behind[i] = automaton.before(self.behind[i + 1], self.kinds[i])
        return automaton.meet(automaton.first, self.behind[0])

    def edit(self, canvas, reads, edits):
        if not self.kinds:
            self.start(canvas)
        lines = np.flatnonzero(canvas.masked[reads])
        rows: dict[int, np.ndarray] = {}
        of_line = []
        for i in (reads[lines] - canvas.prompt_len).tolist():
            row = self.automaton.admitted(self.ahead[i], self.behind[i + 1], self.kinds[i] == ANY)
            rows.setdefault(id(row), row)
            of_line.append(id(row))
        if rows:
            number = {key: n for n, key in enumerate(rows)}
            which = np.asarray([number[key] for key in of_line], np.int32)
            edits.admitted = Admitted(self.key, lines, which, np.stack(list(rows.values())))

    def admits(self, canvas, position, token):
        i = position - canvas.prompt_len
        found = self.automaton.after(self.ahead[i], int(self.automaton.class_of[token]))
        return self.automaton.meet(found, self.behind[i + 1])

    def fix(self, canvas, position, token):
        automaton, ahead, behind, kinds = self.automaton, self.ahead, self.behind, self.kinds
        at = position - canvas.prompt_len
        kinds[at] = int(automaton.class_of[token])
        for i in range(at, len(kinds)):
            found = automaton.after(ahead[i], kinds[i])
            if found is ahead[i + 1]:
                break
            ahead[i + 1] = found
        for i in range(at, -1, -1):
            found = automaton.before(behind[i + 1], kinds[i])
            if found is behind[i]:
                break
            behind[i] = found
