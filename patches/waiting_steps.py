"""A step that brings an output counts as one that did something.

What: `EngineCore.step_with_batch_queue` says that the model was executed where it waited for a step and has its output,
  though it sent none.
Why: with one set of requests in flight every second call only waits, and vLLM sleeps for a millisecond after each call that
  sent nothing.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM sleeps only after a call that neither sent a step nor had the output of one.
"""

from vllm.v1.engine.core import EngineCore

from vllm_dllm.models import is_ours
from vllm_dllm.patches.wrap import wrap


def _step_with_batch_queue(original, self):
    outputs, executed = original(self)
    return outputs, executed or (outputs is not None and is_ours(self.vllm_config.model_config))


def apply() -> None:
    wrap(EngineCore, "step_with_batch_queue", _step_with_batch_queue)
