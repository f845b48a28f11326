"""`check_integrity` as a utility of the engine core.

What: adds a method to vLLM's EngineCore that asks the scheduler whether requests and KV blocks agree.
Why: the scheduler lives in the engine's process, and utilities are what its clients can call there.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM lets a scheduler class offer utilities of its own.
"""

from vllm.v1.engine.core import EngineCore

from vllm_dllm.patches.wrap import add


def check_integrity(self: EngineCore) -> int:
    """How many requests the scheduler holds. Raises AssertionError if requests and KV blocks do not agree."""
    return self.scheduler.check_integrity()


def apply() -> None:
    add(EngineCore, "check_integrity", check_integrity)
