"""The output of a step that has been launched."""

from typing import Any

from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput

from vllm_dllm.vllm_messages import DllmModelRunnerOutput
from vllm_dllm.worker.readout import Nothing, Reading


class Launched(AsyncModelRunnerOutput):
    """A step's output, which the device may still be computing."""

    def __init__(
        self,
        req_ids: list[str],
        reading: Reading | Nothing | None,  # None on tensor-parallel ranks other than the first
        weights: int,
        signals: dict[int, dict[str, Any]],
        layer_tokens: dict[int, list[int]],
    ):
        self.req_ids = req_ids
        self.reading = reading
        self.weights = weights
        self.signals = signals
        self.layer_tokens = layer_tokens

    def get_output(self) -> ModelRunnerOutput:
        """Waits for the device."""
        ids = self.req_ids
        output = DllmModelRunnerOutput(req_ids=ids, req_id_to_index={r: i for i, r in enumerate(ids)})
        output.weights = self.weights
        if self.reading is not None:
            output.observation = self.reading.observation()
            output.observation.signals, output.observation.layer_tokens = self.signals, self.layer_tokens
        return output
