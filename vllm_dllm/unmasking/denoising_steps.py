"""A number of passes for each block. Source: SDAR (arXiv:2510.06303), JetAstra/SDAR; LLaDA2.0 (arXiv:2512.15745)."""

import numpy as np

from vllm_dllm.options import Option, SettingError
from vllm_dllm.unmasking.base import UnmaskingRule

THRESHOLD = Option(
    "dynamic_threshold",
    float,
    None,
    "unmask all positions whose score is above this instead, if they are more than the pass's quota",
    low=0,
    high=1,
    read_by="`dllm_denoising_steps`",
)


class DenoisingSteps(UnmaskingRule):
    """`denoising_steps` passes for each block, of whose positions pass i unmasks a quota, the largest scores first.

    The quota of a block of b positions is b // steps, and one more while i < b % steps, whatever of it was given. With
    `dynamic_threshold` all those above it are unmasked instead, where they are at least as many.
    """

    option = Option("denoising_steps", int, None, "unmask each block in so many passes", low=1)
    options = (THRESHOLD,)
    scores = ("confidence", "margin")
    needs_blocks = True
    part = "block"

    def __init__(self, denoising_steps: int | None, dynamic_threshold: float | None = None):
        """`denoising_steps` None: as many as a block has positions."""
        self.steps = denoising_steps
        self.threshold = None if dynamic_threshold is None else np.float32(dynamic_threshold)

    def check(self, gen_length, num_blocks, block_length):
        if self.steps is not None and self.steps > block_length:
            raise SettingError(
                f"dllm_denoising_steps={self.steps} is not allowed: it must be at most {block_length}, the positions of a "
                "block"
            )

    def number(self, canvas, ranked):
        length = canvas.frontier.block_length
        steps, step = self.steps or length, canvas.block_passes
        # behind the last step some are left where constraints refused tokens
        quota = max(1, length // steps + (step < length % steps)) if step < steps else 1
        if self.threshold is not None:
            quota = max(quota, int(np.count_nonzero(ranked > self.threshold)))
        return min(quota, len(ranked))
