"""The end of a request whose decoding cannot go on: vLLM's finish reason `error`, with a sentence that says why.

In the scheduler, around vLLM's own `update_from_output`:

    failed = end_failed(self, {request_id: "the model's output is not finite ..."})
    outputs = super().update_from_output(...)       # passes over requests that have ended
    add_failed(outputs, failed)

The sentence is the request's `stop_reason`: an offline caller finds it in `CompletionOutput.stop_reason` beside the
finish reason, a client of the server in HTTP 500 or in a stream's error event (patches/failed_requests.py).
"""

from collections.abc import Mapping

from vllm.logger import init_logger
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus

logger = init_logger(f"vllm.{__name__}")

NOT_FINITE = (
    "the model's output is not finite (NaN or infinite logits): the checkpoint's weights are damaged, or their values are "
    "too large for its dtype"
)


def end_failed(scheduler: Scheduler, sentences: Mapping[str, str]) -> list[Request]:
    """End these requests (by request id, each with its sentence) and free what they hold; those that ended.

    Call it before vLLM's `update_from_output`, which tells the clients' processes which requests ended.
    """
    if not sentences:
        return []
    for request_id, sentence in sentences.items():
        if request_id in scheduler.requests:  # else it was aborted meanwhile
            scheduler.requests[request_id].stop_reason = sentence
    failed = scheduler.finish_requests(sentences, RequestStatus.FINISHED_ERROR)
    for request in failed:
        logger.error("Request %s ends with an error: %s", request.request_id, request.stop_reason)
    return failed


def add_failed(outputs: dict[int, EngineCoreOutputs], failed: list[Request]) -> None:
    """Add the last output of each of these requests to a step's outputs, which are by client."""
    for request in failed:
        outputs.setdefault(request.client_index, EngineCoreOutputs()).outputs.append(last_output(request))


def last_output(request: Request) -> EngineCoreOutput:
    """Of a request that has ended without another token."""
    return EngineCoreOutput(
        request_id=request.request_id,
        new_token_ids=[],
        finish_reason=request.get_finished_reason(),
        stop_reason=request.stop_reason,
        events=request.take_events(),
        trace_headers=request.trace_headers,
        prefill_stats=request.take_prefill_stats(),
    )
