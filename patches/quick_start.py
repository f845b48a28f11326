"""vLLM's processes import what they need without Python's garbage collector.

What: engine cores, ranks, API servers and the data-parallel coordinator of one of our models begin with the collector off.
  It is on again when vLLM has loaded its plugins, and leaves alone what is there by then (`gc.freeze`).
Why: each of them first imports some 7,000 modules, and the collector looks at all that they make again and again. On two
  busy cores an import took 16.5 s of CPU time, and takes 11.6.
Applied: by engine_config.py, in the process that starts the others.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM's processes do so themselves.
"""

import gc
import multiprocessing
from multiprocessing import spawn

NAMES = ("EngineCore", "VllmWorker-", "ApiServer_", "VLLM_DP_Coordinator")  # how vLLM's begin


class _Off:
    """Where this is unpickled, the collector is off."""

    def __reduce__(self):
        return gc.disable, ()


_prepare = spawn.get_preparation_data


def _get_preparation_data(name: str) -> dict:
    """What a process is sent first of all, before anything that takes an import."""
    return _prepare(name) | ({"dllm_collector": _Off()} if name.startswith(NAMES) else {})


def apply() -> None:
    """For a process that is about to start others for one of our models."""
    if spawn.get_preparation_data is _prepare:
        spawn.get_preparation_data = _get_preparation_data


def end() -> None:
    """For a process that has imported nearly all; an engine core is about to start ranks."""
    if multiprocessing.current_process().name.startswith(NAMES):
        apply()
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
