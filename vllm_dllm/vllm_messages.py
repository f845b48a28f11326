"""What crosses between scheduler and worker, as subclasses of vLLM's own messages."""

from dataclasses import dataclass

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

from vllm_dllm.messages import Batch, StepObservation

# in `additional_config`, once engine_config.py has been through it: whether the worker keeps every layer's inputs
HIDDEN_CACHE = "dllm_hidden_cache"
# among the tasks that the worker supports, which vLLM hands to whoever admits requests: policies that look into the
# attention, for its backend's keys can be read
LOOKS = "dllm_looks"
# likewise: how many positions a block has, which most partial passes compute of each request
BLOCK = "vllm_dllm_block_length"


@dataclass
class DllmSchedulerOutput(SchedulerOutput):
    batch: Batch | None = None  # None if no pass is due
    step: int = 0  # which of the scheduler's steps this is
    queued: bool = False  # whether vLLM asks for the output later, by `sample_tokens`


@dataclass
class DllmModelRunnerOutput(ModelRunnerOutput):
    observation: StepObservation | None = None  # of the step's batch
    weights: int = 0  # how often the worker's weights had been changed when it computed this
