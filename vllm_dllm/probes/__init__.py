"""What a policy may have measured inside a pass. A probe is two halves, in two files: what is asked, which travels with
the batch (`drift.py`, `rollout.py`), and who measures it in the worker (`drift_worker.py`, `rollout_worker.py`)."""

from vllm_dllm.probes.base import Probe

__all__ = ["Probe"]
