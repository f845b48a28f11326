"""The attention rollout that d2Cache decides by (arXiv:2509.23094)."""

from dataclasses import dataclass
from typing import ClassVar

from vllm_dllm.probes.base import Probe


@dataclass(frozen=True)
class Rollout(Probe):
    """Gives the signal `importance`: the rollout's column sums, float32, one for each canvas position that exists."""

    name: ClassVar[str] = "rollout"
    worker: ClassVar[str] = "vllm_dllm.probes.rollout_worker:RolloutWorker"
