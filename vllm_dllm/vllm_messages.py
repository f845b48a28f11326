"""What crosses between scheduler and worker, as subclasses of vLLM's own messages."""

from dataclasses import dataclass

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

from vllm_dllm.batch import Batch, StepObservation


@dataclass
class DllmSchedulerOutput(SchedulerOutput):
    batch: Batch | None = None  # None if no pass is due


@dataclass
class DllmModelRunnerOutput(ModelRunnerOutput):
    observation: StepObservation | None = None  # of the step's batch
