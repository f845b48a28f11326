"""A caching policy: which positions the next pass computes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.observation import Observation
from vllm_dllm.options import Option


@dataclass
class Plan:
    """One pass of one request."""

    queries: np.ndarray  # int32 canvas positions to compute, ascending
    full: bool  # all of them


class CachePolicy(ABC):
    """One request's policy: plain Python over a canvas. It may keep state between passes.

    Its options' names are its constructor's arguments. `row_shift` is the model's: the prediction for
    position i is read at row i + row_shift.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, row_shift: int):
        self.row_shift = row_shift

    @abstractmethod
    def plan(self, canvas: Canvas) -> Plan:
        """The next pass. It must compute the rows of `canvas.candidates()`."""

    def observe(self, canvas: Canvas, plan: Plan, seen: Observation, unmasked: np.ndarray) -> None:  # noqa: B027
        """Told after each pass what it read and which response positions were unmasked."""


def full_pass(canvas: Canvas) -> Plan:
    return Plan(np.arange(canvas.length, dtype=np.int32), full=True)
