"""Penalties on tokens that the text has already, as vLLM and the OpenAI API define them.

For a token that stands n times among the response's known ones:

    repetition   its logit is divided by this where positive, else multiplied, if n > 0 or the prompt has it
    frequency    n times this is subtracted
    presence     this is subtracted, if n > 0

What comes left to right elsewhere comes in any order here: the tokens known are those given or unmasked in earlier passes,
wherever they stand, and all positions of a pass are penalised alike.
"""

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.constraints.base import Constraint
from vllm_dllm.messages import Adjustment


class Penalties(Constraint):
    """Text behind the response counts as the prompt does; what is decoded there (overflow) does not."""

    def __init__(self, repetition: float = 1.0, frequency: float = 0.0, presence: float = 0.0):
        self.repetition = repetition
        self.frequency = frequency
        self.presence = presence

    def edit(self, canvas, reads, edits):
        response = slice(canvas.prompt_len, canvas.response_end)
        known, counts = np.unique(canvas.tokens[response][~canvas.masked[response]], return_counts=True)
        shift = -(self.frequency * counts + self.presence).astype(np.float32)
        if self.repetition == 1.0:
            if len(known):
                edits.adjusted.append(Adjustment(known, None, shift))
            return
        tokens = np.union1d(known, self._around(canvas))
        shifts = np.zeros(len(tokens), np.float32)
        shifts[np.searchsorted(tokens, known)] = shift
        edits.adjusted.append(Adjustment(tokens, np.full(len(tokens), self.repetition, np.float32), shifts))

    def _around(self, canvas: Canvas) -> np.ndarray:
        return np.concatenate((canvas.tokens[: canvas.prompt_len], canvas.tokens[canvas.decoded_end :]))
