"""Requests that score, on the engine's side: how one says what it wants, and how its numbers leave.

    CARRIER in extra_args      a target and its passes (`Target`): the prompt is the request's, the target takes the place
                               of its answer, and nothing is generated. Its numbers, one for each pass, are the request's
                               `prompt_token_id_logprobs`
    prompt_logprobs            the chain over the prompt, from its second token on; then the request decodes as ever

Both are fields that vLLM's messages have.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.request import Request, RequestStatus

from vllm_dllm.failed import last_output
from vllm_dllm.likelihood.passes import Chain, Passes, unpack
from vllm_dllm.options import SettingError
from vllm_dllm.scoring import Scoring
from vllm_dllm.settings import ModelTraits, Settings

CARRIER = "vllm_dllm.target"


class Target(NamedTuple):
    """What a request scores. It is an object until the request is admitted, so that no client can send one."""

    ids: list[int]
    passes: Passes

    def pack(self) -> list[Any]:
        """For the way to the engine."""
        return [self.ids, self.passes.pack()]


def target_of(params: SamplingParams) -> Target | None:
    """Of a request that is being admitted. Raises SettingError for one that is none of ours."""
    found = (params.extra_args or {}).get(CARRIER)
    if found is not None and not isinstance(found, Target):
        raise SettingError(f"{CARRIER} is not allowed in a request: it is the server's own")
    return found


def has_target(params: SamplingParams) -> bool:
    """Whether a request that was admitted scores a target, and does nothing else."""
    return CARRIER in (params.extra_args or {})


def scoring_of(
    request: Request, traits: ModelTraits, settings: Settings, recorded: bool, computed: int
) -> tuple[Scoring | None, bool]:
    """What an admitted request scores, if anything, and whether it decodes (then). `computed`: positions of its prompt that
    are in its pages."""
    params, prompt, block = request.sampling_params, request.prompt_token_ids, settings.causal_block
    if carried := (params.extra_args or {}).get(CARRIER):
        ids, passes = carried
        scoring = Scoring(
            prompt, ids, unpack(passes), traits, settings.cfg_scale, recorded=recorded, block=block, computed=computed
        )
        return scoring, False
    if params.prompt_logprobs is None or len(prompt) < 2:
        return None, True
    # without guidance: of a text that is all prompt, nothing is left in the second canvas
    chain = Chain(0, len(prompt) - 1, len(prompt) - 1)
    return Scoring(prompt[:1], prompt[1:], chain, traits, top=params.prompt_logprobs, block=block), True


def prompt_logprobs(scoring: Scoring) -> LogprobsTensors:
    """As vLLM has them: for each token but the first, its own and those of the most likely ones."""
    assert scoring.rows is not None
    ids, logprobs, ranks = (np.concatenate(part) for part in zip(*scoring.rows, strict=True))
    return LogprobsTensors(torch.from_numpy(ids), torch.from_numpy(logprobs), torch.from_numpy(ranks))


def end_scored(scheduler: Scheduler, scored: Mapping[str, Scoring]) -> list[tuple[Request, Scoring]]:
    """End the requests, by request id, that have scored all they wanted; called as `end_failed` is."""
    if not scored:
        return []
    ended = scheduler.finish_requests(scored, RequestStatus.FINISHED_STOPPED)
    return [(request, scored[request.request_id]) for request in ended]


def add_scored(outputs: dict[int, EngineCoreOutputs], ended: list[tuple[Request, Scoring]]) -> None:
    """Add the output of each of these to a step's outputs, which are by client."""
    for request, scoring in ended:
        last = last_output(request)
        last.prompt_token_id_logprobs = torch.from_numpy(scoring.scores)
        outputs.setdefault(request.client_index, EngineCoreOutputs()).outputs.append(last)
