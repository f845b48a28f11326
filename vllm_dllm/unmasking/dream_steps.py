"""Fixed steps, as Dream counts them. Source: `generation_utils.py` of Dream-org/Dream-v0 (arXiv:2508.15487)."""

import numpy as np
import torch

from vllm_dllm.options import Option
from vllm_dllm.unmasking.base import top
from vllm_dllm.unmasking.steps import Steps

EPS = 1e-3  # Dream's `eps`: where its timesteps end
ALG_TEMP = Option(
    "alg_temp",
    float,
    0.0,
    "Dream's alg_temp: draw positions by softmax(score / this); 0: the best ones",
    low=0,
    when=lambda choice: choice.score != "origin",
    read_by="`dllm_steps` of a Dream model, unless `dllm_score=origin`",
)


class DreamSteps(Steps):
    """`steps` passes along the timesteps linspace(1, eps, steps + 1) of each block.

    Step i unmasks int(masked * (1 - t[i+1] / t[i])) positions, the last step all that remain: the largest
    scores first or, with `alg_temp`, drawn by softmax(score / alg_temp). With the score `origin` each
    masked position is unmasked with probability 1 - t[i+1] / t[i] instead.
    """

    scores = (*Steps.scores, "origin")
    options = (ALG_TEMP,)

    def __init__(self, steps: int, alg_temp: float = 0.0):
        super().__init__(steps)
        self.alg_temp = alg_temp

    @property
    def draws(self) -> bool:
        return self.alg_temp > 0 or self.score == "origin"

    def choose(self, canvas, scores, masked, steps, rng):
        # float32 throughout: the source's rounding decides where the product just misses a whole number
        t = torch.linspace(1, EPS, steps + 1).numpy()
        share = np.float32(1) - t[self.step + 1] / t[self.step] if self.step < steps - 1 else np.float32(1)
        if self.score == "origin":
            candidates = canvas.candidates
            return candidates[rng.random(len(candidates)) < share]
        n = int(np.float32(masked) * share)
        if not n or not self.alg_temp:
            return top(canvas, scores, n, part="canvas")
        response = slice(canvas.prompt_len, canvas.response_end)
        weights = np.exp((scores[response] - scores.max()).astype(np.float64) / self.alg_temp)
        # positions of weight 0 can't be drawn, and too few others may be left: the best of them follow
        drawn = rng.choice(len(weights), min(n, np.count_nonzero(weights)), replace=False, p=weights / weights.sum())
        scores = scores.copy()
        scores[canvas.prompt_len + drawn] = np.inf
        return top(canvas, scores, n, part="canvas")
