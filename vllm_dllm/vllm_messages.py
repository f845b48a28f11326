"""What crosses between scheduler and worker, as subclasses of vLLM's own messages."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput

from vllm_dllm.messages import Batch, StepObservation

# in `additional_config`, once engine_config.py has been through it: whether the worker keeps every layer's inputs
HIDDEN_CACHE = "dllm_hidden_cache"
# likewise: how many positions a block has, which most partial passes compute of each request
BLOCK = "vllm_dllm_block_length"
# likewise: the worker's half of the probe of the server's policy, which most passes are looked into by; None if there is none
PROBE = "vllm_dllm_probe"
# among the tasks that the worker supports, which vLLM hands to whoever admits requests: policies that look into the
# attention, for its backend's keys can be read
LOOKS = "dllm_looks"


@dataclass
class DllmSchedulerOutput(SchedulerOutput):
    batch: Batch | None = None  # None if no pass is due
    step: int = 0  # which of the scheduler's steps this is
    queued: bool = False  # whether vLLM asks for the output later, by `sample_tokens`


@dataclass
class DllmModelRunnerOutput(ModelRunnerOutput):
    observation: StepObservation | None = None  # of the step's batch
    weights: int = 0  # how often the worker's weights had been changed when it computed this


def logprobs_lists(parts: list[tuple[int, list[Any]]], num_requests: int) -> LogprobsLists:
    """vLLM's form: rows of all requests one after the other, padded to the most log probabilities asked for with their own token."""
    rows = [row for _, part in parts for row in part]
    width = max((len(ids) for ids, _, _ in rows), default=1)
    ids = np.empty((len(rows), width), np.int32)
    logprobs = np.empty((len(rows), width), np.float32)
    for i, (row_ids, row_logprobs, _) in enumerate(rows):
        ids[i], logprobs[i] = row_ids[0], row_logprobs[0]  # a given token has no others beside it
        ids[i, : len(row_ids)] = row_ids
        logprobs[i, : len(row_ids)] = row_logprobs
    counts = dict((i, len(part)) for i, part in parts)
    starts = np.cumsum([0] + [counts.get(i, 0) for i in range(num_requests)]).tolist()
    return LogprobsLists(ids, logprobs, np.asarray([rank for _, _, rank in rows], np.int32), starts)
