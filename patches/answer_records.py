"""`dllm_record` of an answer.

What: vLLM's CompletionOutput has a property `dllm_record`: what the answer's record holds (docs/records.md), or None
  where the request asked for none.
Why: what a plugin's engine sends along with an answer has no name of its own there.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: a CompletionOutput has room for what a plugin adds.
"""

from typing import Any

from vllm.outputs import CompletionOutput

from vllm_dllm.carried_records import read
from vllm_dllm.patches.wrap import add


def dllm_record(self: CompletionOutput) -> dict[str, Any] | None:
    kept: dict[str, Any] | None = vars(self).get("_dllm_record")
    if kept is None and self.finish_reason is not None:
        kept = vars(self)["_dllm_record"] = read(self.routed_experts)
    return kept


DLLM_RECORD = property(dllm_record)


def apply() -> None:
    add(CompletionOutput, "dllm_record", DLLM_RECORD)
