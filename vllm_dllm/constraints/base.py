"""A constraint on a request's tokens: it changes the logits before a pass is read, and has a say in what is fixed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.messages import Edits


class Constraint(ABC):
    """One request's: plain Python over a canvas, asked in each pass. It knows nothing of policies, rules and vLLM.

    `asked_by`: the parameter that a request asks for it with, for an error; empty if it bars nothing. `lasting`: what it
    does to the logits of a position is the same in every pass, so that what was read there once stays good.
    """

    asked_by = ""
    lasting = False

    @abstractmethod
    def edit(self, canvas: Canvas, reads: np.ndarray, edits: Edits) -> None:
        """Add to `edits` what is to be done to the logits that predict the canvas positions `reads`."""

    def admits(self, canvas: Canvas, position: int, token: int) -> bool:
        """Whether a pass that has just fixed what `fix` was told may fix `token` at `position` too."""
        return True

    def fix(self, canvas: Canvas, position: int, token: int) -> None:  # noqa: B027 (most see it in the canvas)
        """Told of each token that a pass fixes, in turn; `canvas` has it after the pass only."""


def edits_of(constraints: Sequence[Constraint], canvas: Canvas, reads: np.ndarray) -> Edits | None:
    """What they do together to the logits that predict the canvas positions `reads`; None: nothing, there are none."""
    if not constraints:
        return None
    edits = Edits()
    for constraint in constraints:
        constraint.edit(canvas, reads, edits)
    return edits


def admitted(
    constraints: Sequence[Constraint], canvas: Canvas, positions: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
    """Which of a pass's tokens are fixed, tried in this order: booleans. Those refused stay masked for a later pass."""
    kept = np.ones(len(positions), bool)
    for i, (position, token) in enumerate(zip(positions.tolist(), tokens.tolist(), strict=True)):
        kept[i] = all(c.admits(canvas, position, token) for c in constraints)
        if kept[i]:
            for constraint in constraints:
                constraint.fix(canvas, position, token)
    return kept


def bars_all(
    constraints: Sequence[Constraint], canvas: Canvas, reads: np.ndarray, vocab_size: int, mask_id: int
) -> str | None:
    """What to say where they bar every token at one of the canvas positions `reads`: who, and where; else None."""
    edits = edits_of(constraints, canvas, reads)
    if edits is None:
        return None
    none_left = np.flatnonzero(edits.leaves(len(reads), vocab_size, mask_id) == 0)
    if not len(none_left):
        return None
    names = list(dict.fromkeys(c.asked_by for c in constraints if c.asked_by))
    position = int(reads[none_left[0]]) - canvas.prompt_len
    return f"{' and '.join(names)} bar every token at position {position} of the response"
