"""A response of at least so many tokens."""

from collections.abc import Iterable

import numpy as np

from vllm_dllm.constraints.base import Constraint


class MinTokens(Constraint):
    """Bars the tokens that end a response at its first `count` positions."""

    asked_by = "min_tokens"

    def __init__(self, count: int, end_ids: Iterable[int]):
        self.count = count
        self.ends = np.asarray(sorted(end_ids), np.int32)

    def edit(self, canvas, reads, edits):
        edits.bar(np.flatnonzero(reads < canvas.prompt_len + self.count), self.ends)
