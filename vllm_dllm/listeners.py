"""What happens to requests, told to whoever wants to know: the metrics, the trace file, the live page."""

from collections.abc import Mapping

from vllm.config import VllmConfig
from vllm.v1.request import Request

from vllm_dllm.catalogue import TRACE, WATCH
from vllm_dllm.decoding import Finished
from vllm_dllm.metrics import StepCounts
from vllm_dllm.passes import Pass
from vllm_dllm.running import Running, Task
from vllm_dllm.settings import ServerSettings
from vllm_dllm.trace import Trace
from vllm_dllm.watch.address import place
from vllm_dllm.watch.feed import Feed


class Listeners:
    """The metrics where vLLM wants statistics (`counted`), the others where the server's settings ask for them."""

    def __init__(self, config: VllmConfig, settings: ServerSettings, counted: bool):
        trace = settings.value(TRACE)
        self.counts = StepCounts() if counted else None
        self.trace = None if trace is None else Trace(trace)
        self.feed = Feed(*place(config)) if settings.value(WATCH) else None

    @property
    def recorded(self) -> bool:
        """Whether somebody reads what each pass did, when its request has ended."""
        return self.trace is not None

    def step_begins(self) -> None:
        if self.feed is not None:
            self.feed.listen()

    def sent(self, req_id: str, decoding: Task) -> None:
        """A pass goes out."""
        if self.feed is not None:
            self.feed.sent(req_id, decoding)

    def passed(self, req_id: str, decoding: Task, done: Pass, finished: Finished) -> None:
        """A pass has been finished."""
        if self.counts is not None:
            self.counts.add_pass(req_id, decoding, done, finished)
        if self.feed is not None:
            self.feed.passed(req_id, decoding, done, finished)

    def failed(self, number: int) -> None:
        """So many requests cannot go on."""
        if self.counts is not None:
            self.counts.count("failed_requests", number)

    def ended(self, request: Request, running: Running) -> None:
        """A request that ran has ended, however it did."""
        if self.counts is not None:
            self.counts.end_request(request.request_id, running.passes)
        if self.trace is not None:
            self.trace.write(request, running.decoding)
        if self.feed is not None:
            self.feed.ended(request.request_id, str(request.get_finished_reason()))

    def step_ended(self, running: Mapping[str, Running], waiting: int) -> None:
        """What a step brought has been booked: these run now."""
        if self.feed is not None:
            self.feed.tell(running, waiting)
