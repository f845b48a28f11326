"""Elastic-Cache's drift test, done inside the pass (arXiv:2510.14973)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vllm_dllm.probes.base import Probe


@dataclass(frozen=True, eq=False)
class Drift(Probe):
    """Compare the tracked tokens' attention with what it was; find the tokens to track next.

    Gives the signal `tracked`: canvas positions, ascending.
    """

    track: np.ndarray  # canvas positions, ascending, among the queries: whose attention is compared
    known: int  # positions before this had keys before the pass: the attention to them is compared
    gamma: float  # below this similarity the rest of the pass computes the whole canvas
    track_num: int  # how many of each layer's most-attended positions are tracked next
    masked: np.ndarray  # bool, one for each canvas position that exists: these are never tracked
    window: np.ndarray  # canvas rows, ascending, among the queries: whose attention says what to track

    name: ClassVar[str] = "drift"
    worker: ClassVar[str] = "vllm_dllm.probes.drift_worker:DriftWorker"
    needs_hidden: ClassVar[bool] = True
    widens: ClassVar[bool] = True
