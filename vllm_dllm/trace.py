"""The trace (`dllm_trace`): one JSON line for each finished request."""

import json

import vllm.envs as envs
from vllm.logger import init_logger
from vllm.v1.request import Request

from vllm_dllm.decoding import Decoding
from vllm_dllm.scoring import Scoring

logger = init_logger(f"vllm.{__name__}")


def external_id(request_id: str) -> str:
    """The id that the request came with: vLLM works with that and eight random characters behind it."""
    return request_id if envs.VLLM_DISABLE_REQUEST_ID_RANDOMIZATION else request_id[: -len("-01234567")]


class Trace:
    """Appends to a file. A line has `request_id` (as the client knows it), `finish_reason`, `prompt_len`,
    `gen_length`, `cache`, `output_ids` (the whole response; what was never unmasked is the mask token; of a request that
    scores, its target), and lists with one entry for each pass: what `PassRecord` has.
    """

    def __init__(self, path: str):
        # unbuffered: a line is one write, so that engines side by side (data parallelism) can share the file
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 (open as long as the engine)

    def write(self, request: Request, decoding: Decoding | Scoring) -> None:
        line = {
            "request_id": external_id(request.request_id),
            "finish_reason": str(request.get_finished_reason()),
        } | decoding.shown()
        passes = [record.columns() for record in decoding.record or ()]
        line |= {key: [p[key] for p in passes] for key in (passes[0] if passes else ())}
        try:
            self.file.write(f"{json.dumps(line)}\n".encode())
        except OSError as e:  # a full disk ends no request
            logger.warning_once("dllm_trace=%r has gaps: %s", self.file.name, e.strerror)
