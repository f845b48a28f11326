"""Fixed steps, as LLaDA counts them. Source: `generate.py` of ML-GSAI/LLaDA (arXiv:2502.09992)."""

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.options import Option, SettingError
from vllm_dllm.unmasking.base import UnmaskingRule, top


class Steps(UnmaskingRule):
    """`steps` passes in all, evenly over the blocks.

    With m masked positions at a block's start and s steps in it, step i unmasks m // s positions, plus
    one while i < m % s, the largest scores first. Where constraints refused tokens, passes like the last follow.
    """

    option = Option("steps", int, None, "unmask in this many passes, divided evenly over the blocks", low=1)
    needs_blocks = True
    counts_response_blocks = True

    def __init__(self, steps: int):
        self.steps = steps
        self.block = -1  # the block that `step` counts in
        self.step = 0
        self.masked = 0  # candidates at that block's start

    def check(self, gen_length, num_blocks, block_length):
        if self.steps % num_blocks or self.steps > gen_length:
            raise SettingError(
                f"dllm_steps={self.steps} is not allowed: it must be a multiple of the number of blocks "
                f"({num_blocks}, for {gen_length} response tokens in blocks of {block_length}) and at most {gen_length}"
            )

    def select(self, canvas, scores, seen, rng):
        masked = len(canvas.candidates)
        if canvas.frontier.number != self.block:
            self.block, self.step, self.masked = canvas.frontier.number, 0, masked
        chosen = self.choose(canvas, scores, masked, self.steps // canvas.frontier.count, rng)
        self.step += 1
        return chosen

    def choose(
        self, canvas: Canvas, scores: np.ndarray, masked: int, steps: int, rng: np.random.Generator | None
    ) -> np.ndarray:
        """The positions of step `self.step` of the `steps` in this block; `masked` candidates are left."""
        n = self.masked // steps + (self.step < self.masked % steps)
        if self.step >= steps:  # tokens were refused, so that some are left
            n = max(1, n)
        return top(canvas, scores, min(n, masked), part="canvas")
