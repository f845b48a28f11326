"""On a CPU, `--attention-backend CUSTOM` is not silently another.

What: vLLM's CPU platform takes the attention backend of this package where that is asked for.
Why: it takes its own whatever is asked for, and says so in a line of the log. With this the backend for GPUs can be run,
  and tested, in Triton's interpreter.
Applied: in each rank, by worker/worker.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM's CPU platform takes backends that plugins register.
"""

from vllm.platforms.cpu import CpuPlatform

from vllm_dllm.attention import choice
from vllm_dllm.patches.wrap import wrap


def _get_attn_backend_cls(original, selected_backend, *args, **kwargs):
    if selected_backend == choice.CUSTOM and choice.register():
        return choice.PATH
    return original(selected_backend, *args, **kwargs)


def apply() -> None:
    wrap(CpuPlatform, "get_attn_backend_cls", _get_attn_backend_cls)
