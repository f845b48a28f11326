"""An unmasking rule: which of the candidates become tokens, once a pass is done."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch

from vllm_dllm.canvas import Canvas
from vllm_dllm.observation import Observation
from vllm_dllm.options import Option


class UnmaskingRule(ABC):
    """One request's rule: plain Python over a canvas. It may keep state between passes."""

    option: ClassVar[Option]  # the setting that chooses this rule and gives its value
    scores: ClassVar[tuple[str, ...]] = ("confidence", "margin", "entropy", "random")  # what it can rank by
    needs_entropy: ClassVar[bool] = False

    def check(self, canvas: Canvas) -> None:  # noqa: B027 (most rules fit every canvas)
        """Raise SettingError if the rule does not fit this canvas. Called before the first pass."""

    @abstractmethod
    def select(
        self, canvas: Canvas, scores: np.ndarray, seen: Observation | None, rng: np.random.Generator | None
    ) -> np.ndarray:
        """The response positions to unmask, out of `canvas.candidates()`.

        `scores` is float32 (or float64) with one entry for each response position, -inf where it is no candidate.
        `seen` is None where the policy asks before the pass: rules whose choice hangs on it refuse that.
        `rng` is this request's, there if its settings draw positions.
        """


def top(scores: np.ndarray, n: int, pad: int = 0) -> np.ndarray:
    """The `n` positions with the largest scores.

    Ties fall as `torch.topk` lets them fall on the CPU, because the public codes rank with it. Its choice
    depends on the array's length: `pad` is the number of positions the source ranked before the first
    one here (LLaDA and Dream rank the whole canvas, d2Cache the response).
    """
    array = np.concatenate((np.full(pad, -np.inf, np.float32), scores))
    return torch.topk(torch.from_numpy(array), n).indices.numpy() - pad
