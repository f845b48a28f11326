"""Tokens that stand nowhere in the response, and tokens beside which there are no others."""

from collections.abc import Iterable

import numpy as np

from vllm_dllm.constraints.base import Constraint


class Banned(Constraint):
    """Bars some tokens at every position."""

    lasting = True

    def __init__(self, tokens: Iterable[int], asked_by: str):
        self.tokens = np.asarray(sorted(set(tokens)), np.int32)
        self.asked_by = asked_by

    def edit(self, canvas, reads, edits):
        edits.banned.append(self.tokens)


class Allowed(Constraint):
    """Bars all tokens but some, at every position."""

    lasting = True

    def __init__(self, tokens: Iterable[int], asked_by: str):
        self.tokens = np.asarray(sorted(set(tokens)), np.int32)
        self.asked_by = asked_by

    def edit(self, canvas, reads, edits):
        edits.allow(self.tokens)
