"""No end token in front of given text: behind it there would be text that is not the answer's."""

from collections.abc import Iterable

import numpy as np

from vllm_dllm.constraints.base import Constraint


class NoEndBeforeGiven(Constraint):
    """Bars the end tokens at positions that have a given token somewhere to their right.

    Behind the last given token they are allowed, and end the response as ever.
    """

    asked_by = "given text"
    lasting = True

    def __init__(self, end_ids: Iterable[int]):
        self.ends = np.asarray(sorted(end_ids), np.int32)

    def edit(self, canvas, reads, edits):
        given = np.flatnonzero(canvas.given)
        edits.bar(np.flatnonzero(reads < given[-1]), self.ends)
