"""Fixed steps, as Dream counts them. Source: `generation_utils.py` of Dream-org/Dream-v0 (arXiv:2508.15487)."""

import numpy as np
import torch

from vllm_dllm.unmasking.base import top
from vllm_dllm.unmasking.steps import Steps

EPS = 1e-3  # Dream's `eps`: where its timesteps end


class DreamSteps(Steps):
    """`steps` passes along the timesteps linspace(1, eps, steps + 1) of each block.

    Step i unmasks int(masked * (1 - t[i+1] / t[i])) positions, the last step all that remain: the largest
    scores first or, with `alg_temp`, drawn by softmax(score / alg_temp). With the score `origin` each
    masked position is unmasked with probability 1 - t[i+1] / t[i] instead.
    """

    scores = (*Steps.scores, "origin")

    def __init__(self, steps: int, alg_temp: float = 0.0, origin: bool = False):
        super().__init__(steps)
        self.alg_temp = alg_temp
        self.origin = origin

    def choose(self, canvas, scores, masked, steps, rng):
        # float32 throughout: the source's rounding decides where the product just misses a whole number
        t = torch.linspace(1, EPS, steps + 1).numpy()
        share = np.float32(1) - t[self.step + 1] / t[self.step] if self.step < steps - 1 else np.float32(1)
        if self.origin:
            candidates = canvas.candidates()
            return candidates[rng.random(len(candidates)) < share]
        n = int(np.float32(masked) * share)
        if not n or not self.alg_temp:
            return top(scores, n, pad=canvas.prompt_len)
        weights = np.exp((scores - scores.max()).astype(np.float64) / self.alg_temp)
        # positions of weight 0 can't be drawn, and too few others may be left: the best of them follow
        drawn = rng.choice(len(scores), min(n, np.count_nonzero(weights)), replace=False, p=weights / weights.sum())
        scores = scores.copy()
        scores[drawn] = np.inf
        return top(scores, n, pad=canvas.prompt_len)
