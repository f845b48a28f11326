"""The scheduler: it owns every request's decoding, plans passes, and packs them into steps."""

from collections.abc import Collection, Iterator
from typing import Any

from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import CachedRequestData
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreEventType
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.request import Request, RequestStatus

from vllm_dllm.carried_records import attach, carry
from vllm_dllm.catalogue import OVERLAP
from vllm_dllm.decoding import Decoding, NotFinite, choose_together
from vllm_dllm.engine_config import allow_overlap, server_settings
from vllm_dllm.failed import NOT_FINITE, add_failed, end_failed
from vllm_dllm.images import Images, placed
from vllm_dllm.listeners import Listeners
from vllm_dllm.loaded_formats import LoadedFormats
from vllm_dllm.messages import Observation
from vllm_dllm.overlap import Overlap
from vllm_dllm.packing import pack
from vllm_dllm.passes import Pass
from vllm_dllm.running import Running, Task
from vllm_dllm.scored import add_scored, end_scored, prompt_logprobs
from vllm_dllm.scoring import Scoring
from vllm_dllm.slots import Slots
from vllm_dllm.starter import Starter
from vllm_dllm.vllm_messages import DllmModelRunnerOutput, DllmSchedulerOutput, logprobs_lists


class DllmScheduler(Scheduler):
    """vLLM's scheduler with the schedule of diffusion decoding.

    A request takes the KV slots of its whole canvas when it is admitted and keeps them until it ends, so
    a running request is never preempted. Each step holds one pass of every running request that has none in
    flight, as far as the token budget goes; those left out come first in the next step. A step's passes stay with the
    step until its output comes back: several may be in flight, and their outputs may come in any order.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.settings = server_settings(self.vllm_config)
        self.active: dict[str, Running] = {}  # the running requests
        self.steps: dict[int, list[tuple[str, Running, Pass]]] = {}  # the steps in flight, by number
        self.listeners = Listeners(self.vllm_config, self.settings, self.log_stats)
        self.formats = LoadedFormats()
        self.slots = Slots(self.kv_cache_manager, self.block_size)
        self.weights: int | None = None  # how often the worker's had been changed when it was heard of last
        # an embedding for every KV slot: as long as there are pages, there is room for images
        slots = self.cache_config.num_gpu_blocks * self.block_size
        self.encoder_cache_manager = EncoderCacheManager(slots)
        self.images = Images(self.encoder_cache_manager)
        self.starter = Starter(
            self.vllm_config, self.settings, self.slots, self.images, self.formats, self.listeners.recorded
        )
        self.wipe: list[int] = []  # pages that the worker is to zero before the next step
        choice = allow_overlap(self.vllm_config, self.settings.value(OVERLAP))
        self.overlap = Overlap(choice)
        self.queued = self.vllm_config.max_concurrent_batches > 1

    def add_request(self, request: Request) -> None:
        self.images.name(request)
        self.slots.name(request, self.starter.asks(request).settings)
        super().add_request(request)

    # ---- one step out ----

    def has_requests(self) -> bool:
        """Whether a step is to go out. While one is in flight: another one beside it, or else vLLM waits for it."""
        if not self.steps:
            return super().has_requests()
        if not self.overlap.by_turns or self.pause_state == PauseState.PAUSED_ALL:
            return False
        return any(not running.in_flight for running in self.active.values()) or self._has_room()

    def _has_room(self) -> bool:
        """Whether the first of the waiting requests can be admitted to a step of its own."""
        if self.pause_state != PauseState.UNPAUSED or not self.waiting:
            return False
        return self.starter.has_room(self.waiting.peek_request(), self._places(), self.max_num_scheduled_tokens)

    def _places(self) -> int:
        """How many more requests may run."""
        return self.max_num_active_reqs - len(self.running) - len(self.slots.seconds)

    def schedule(self, throttle_prefills: bool = False) -> DllmSchedulerOutput:
        self.current_step += 1
        self.listeners.step_begins()
        if not self.running:
            self.overlap.rest()
        most = self.overlap.most(min(len(self.running) + len(self.waiting), self.max_num_active_reqs))
        due, left_out, room = self._choose(most)
        if self.pause_state == PauseState.UNPAUSED and not left_out and len(due) < most:
            due += self._admit(room, most - len(due))
        in_flight = [r for r in self.running if self.active[r.request_id].in_flight]
        self.running = left_out + in_flight + due
        step = [self._start_pass(request) for request in due]
        scheduled = {i: p.tokens for i, _, p in step}
        passes = [p for _, _, p in step]
        if due:
            self.steps[self.current_step] = step
            tables = [r.tables[0] for _, r, _ in step] + [r.tables[1] for _, r, p in step if p.second is not None]
            self.overlap.sent(alone=len(self.steps) == 1)
        output = DllmSchedulerOutput(
            scheduled_new_reqs=[],  # a batch says all there is to know: the worker keeps no request
            scheduled_cached_reqs=CachedRequestData.make_empty(),
            num_scheduled_tokens=scheduled,
            total_num_scheduled_tokens=sum(scheduled.values()),
            scheduled_spec_decode_tokens={},
            scheduled_encoder_inputs={},
            finished_req_ids=self.finished_req_ids,
            free_encoder_mm_hashes=[],
            batch=pack(passes, tables, self.wipe) if due else None,
            step=self.current_step,
            queued=self.queued,
        )
        self.finished_req_ids = set()
        if output.batch is not None:
            output.batch.tables, output.batch.dropped = self.formats.exchange(p.edits for p in passes)
            output.batch.embed, output.batch.forget = self.images.take()
            for request, planned, first in zip(due, passes, output.batch.query_starts.tolist(), strict=False):
                output.batch.placed += placed(request, planned, first)
            self.wipe = []
        return output

    def _start_pass(self, request: Request) -> tuple[str, Running, Pass]:
        running = self.active[request.request_id]
        planned, running.planned, running.in_flight = running.planned, None, True
        assert planned is not None
        request.num_in_flight_tokens += planned.tokens
        self.listeners.sent(request.request_id, running.decoding)
        return request.request_id, running, planned

    def _choose(self, most: int) -> tuple[list[Request], list[Request], int]:
        """The running requests whose pass is in this step, at most so many; those that are left out of it; and how many
        tokens more there is room for.

        Those that have been left out longest come first, then the refreshes whose mark is oldest. A refresh that
        does not fit goes on with a partial pass instead, as long as its `dllm_max_delay` lasts.
        """
        free = [(r, self.active[r.request_id]) for r in self.running if not self.active[r.request_id].in_flight]
        if self.pause_state == PauseState.PAUSED_ALL:
            return [], [request for request, _ in free], 0
        budget = self.max_num_scheduled_tokens
        planned: list[tuple[Request, Running, Pass]] = []
        for request, running in free:
            if running.planned is None:
                running.planned = running.decoding.plan()
            planned.append((request, running, running.planned))
        wanted = sum(p.most_tokens for _, _, p in planned)
        if wanted > budget:
            # what only computes keys can do some of it, so it takes what others leave
            planned.sort(key=lambda item: item[1].urgency(item[2]), reverse=True)
        elif len(planned) <= most:
            for _, running in free:
                running.left_out = 0
            return [request for request, _ in free], [], budget - wanted
        due: list[Request] = []
        left_out: list[Request] = []
        for request, running, next_pass in planned:
            if len(due) == most:
                left_out.append(request)
                continue
            next_pass = running.planned = running.within(budget, next_pass, self.starter.chunked) or next_pass
            if next_pass.most_tokens > budget:
                left_out.append(request)
                running.left_out += 1
            else:
                due.append(request)
                running.left_out = 0
                budget -= next_pass.most_tokens
        return due, left_out, budget

    def _admit(self, budget: int, most: int) -> list[Request]:
        """At most so many waiting requests, in their order, as long as there is room."""
        admitted: list[Request] = []
        while self.waiting and len(admitted) < most:
            request = self.waiting.peek_request()
            others = bool(self.running or admitted)
            running = self.starter.start(request, self._places() - len(admitted), budget, others, self.weights)
            if running is None:
                break
            assert running.planned is not None
            self.waiting.pop_request()
            self.active[request.request_id] = running
            request.status = RequestStatus.RUNNING
            if self.log_stats:
                request.record_event(EngineCoreEventType.SCHEDULED)
            budget -= running.planned.most_tokens  # the whole canvas, as far as it exists
            admitted.append(request)
        return admitted

    # ---- one step back ----

    def update_from_output(self, scheduler_output, model_runner_output):
        """Unmask, then hand the tokens that became final to vLLM's own stop, output and streaming code."""
        assert isinstance(scheduler_output, DllmSchedulerOutput)
        failed: list[Request] = []
        ended: list[tuple[Request, Scoring]] = []
        records: dict[str, bytes] = {}
        if scheduler_output.batch is not None:
            assert isinstance(model_runner_output, DllmModelRunnerOutput)
            passes, tokens = len(model_runner_output.req_ids), scheduler_output.total_num_scheduled_tokens
            self.overlap.came(passes, tokens, len(self.running), alone=len(self.steps) == 1)
            broken, scored = self._observe(scheduler_output, model_runner_output)
            self.listeners.failed(len(broken))
            records = {i: carry(d) for i, d in self._recorded(model_runner_output, broken)}
            failed = end_failed(self, broken)
            ended = end_scored(self, scored)
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        add_failed(outputs, failed)
        add_scored(outputs, ended)
        attach(outputs, records)
        self.listeners.step_ended(self.active, len(self.waiting))
        return outputs

    def _recorded(self, output: DllmModelRunnerOutput, broken: Collection[str]) -> Iterator[tuple[str, Decoding]]:
        """The requests of a step that are recorded and about which vLLM is about to tell their clients something."""
        for req_id, tokens in zip(output.req_ids, output.sampled_token_ids, strict=True):
            if tokens or req_id in broken:
                decoding = self.active[req_id].decoding
                if isinstance(decoding, Decoding) and decoding.settings.record:
                    yield req_id, decoding

    def _observe(
        self, step: DllmSchedulerOutput, output: DllmModelRunnerOutput
    ) -> tuple[dict[str, str], dict[str, Scoring]]:
        """Finish the step's passes. The requests whose decoding cannot go on, each with a sentence that says why; and those
        that have scored all they wanted."""
        batch, observation = step.batch, output.observation
        assert batch is not None and observation is not None
        logprobs: list[tuple[int, list[Any]]] = []
        broken: dict[str, str] = {}
        scored: dict[str, Scoring] = {}
        starts = batch.read_starts.tolist()
        output.sampled_token_ids = []
        going: dict[int, tuple[Task, Observation]] = {}  # by their places: those whose pass is to be finished
        step_passes = self.steps.pop(step.step)
        self.images.came(batch.embed, output.weights)
        if output.weights != self.weights:
            self.weights = output.weights
            self.slots.forget()
        for i, (req_id, running, done) in enumerate(step_passes):
            second = batch.guidance[i].entry if i in batch.guidance else None
            seen = observation.of_request(i, starts[i], starts[i + 1], done.reads, second)
            if self.active.get(req_id) is not running:  # it ended while its pass ran
                if not seen.finite:
                    self._wipe(running, holders=0)
                continue
            running.in_flight = False
            if running.mixed(done, output.weights) or self.images.outdated(self.requests[req_id], output.weights):
                running.planned = running.decoding.redo()
            else:
                going[i] = running.decoding, seen
        chosen = choose_together(going)
        for i, (req_id, running, done) in enumerate(step_passes):
            tokens: list[int] = []
            if i in going:
                decoding, seen = going[i]
                first = decoding.sent
                try:
                    finished = decoding.finish(done, *chosen.get(i, (seen,)))
                except NotFinite as why:
                    broken[req_id] = str(why) or NOT_FINITE
                    self._wipe(running, holders=1)
                else:
                    self.listeners.passed(req_id, decoding, done, finished)
                    self._keep(self.requests[req_id], running)
                    tokens = decoding.take_tokens()
                    if isinstance(decoding, Scoring):
                        if decoding.done and not running.goes_on():
                            scored[req_id] = decoding
                    elif tokens and running.prompt is not None:
                        output.prompt_logprobs_dict[req_id] = prompt_logprobs(running.prompt)
                        running.prompt = None
                    if decoding.logprobs is not None:
                        logprobs.append((i, decoding.logprobs[first : decoding.sent]))
            output.sampled_token_ids.append(tokens)
        if logprobs:
            output.logprobs = logprobs_lists(logprobs, len(output.req_ids))
        return broken, scored

    def _update_request_with_output(self, request: Request, new_token_ids: list[int], is_stale: bool = False):
        """vLLM looks for an end behind each token of several. Mostly there is none, which one look tells."""
        decoding, more = self.active[request.request_id].decoding, len(new_token_ids)
        assert isinstance(decoding, Decoding) and request.sampling_params is not None
        if (
            decoding.sampling.end_ids.isdisjoint(new_token_ids)
            and request.num_output_tokens + more < request.max_tokens
            and request.num_tokens + more < self.max_model_len
            and request.sampling_params.repetition_detection is None
        ):
            request.append_output_token_ids(new_token_ids)
            return new_token_ids, False
        return super()._update_request_with_output(request, new_token_ids, is_stale)

    def _wipe(self, running: Running, holders: int) -> None:
        """Zero the pages of a request that is not finite before anybody gets them: attention gives what a page holds behind
        a canvas weight 0, and 0 times NaN is NaN. Those that others hold too had been computed before."""
        pages = [page for own in running.pages for page in own if self.slots.holders(page) == holders]
        self.slots.spoil(pages)
        self.wipe += pages

    def make_stats(self, *args: Any, **kwargs: Any) -> SchedulerStats | None:
        stats = super().make_stats(*args, **kwargs)
        if stats is not None and self.listeners.counts is not None:
            stats.waiting_lora_adapters = self.listeners.counts.take()  # the carrier: metrics.py says why
        return stats

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """No page is found any more. Where running requests must not go on with their keys and values (new weights),
        they keep their canvases and recompute everything in the next pass."""
        self.slots.forget()
        if reset_running_requests:
            for running in self.active.values():
                running.decoding.refresh()
                if running.planned is not None:
                    running.planned = running.decoding.replan()
        return True

    def reset_encoder_cache(self) -> None:
        """The worker is about to forget the embeddings of images: running requests get theirs again."""
        self.images.reset(self.running)

    # ---- the end of a request ----

    def _free_encoder_inputs(self, request: Request) -> None:
        """Not while it runs: the next full pass needs the embeddings of its images again."""

    def _free_request(self, request: Request, delay_free_blocks: bool = False):
        running = self.active.pop(request.request_id, None)
        if running is not None:
            self._keep(request, running)
            self.listeners.ended(request, running)
        return super()._free_request(request, delay_free_blocks)

    def _keep(self, request: Request, running: Running) -> None:
        """Have others find what a request has computed for good."""
        if running.shares:
            self.slots.keep(request, running.decoding.settled)

    def _free_request_blocks(self, request: Request):
        super()._free_request_blocks(request)
        if request.request_id in self.slots.seconds:
            super()._free_request_blocks(self.slots.seconds.pop(request.request_id))

    def check_integrity(self) -> int:
        """How many requests there are. Raises AssertionError unless they, decodings and KV blocks agree."""
        running = {r.request_id for r in self.running}
        assert len(running) == len(self.running), "a request runs twice"
        assert running == set(self.active), f"decodings {set(self.active)} of running requests {running}"
        flying = {i for step in self.steps.values() for i, r, _ in step if self.active.get(i) is r}
        assert flying == {i for i, r in self.active.items() if r.in_flight}, "a pass is in flight in no step"
        waiting = {r.request_id for r in self.waiting}
        assert not running & waiting, "a request runs and waits"
        assert running | waiting == set(self.requests), "a request neither runs nor waits"
        guided = {i for i, r in self.active.items() if len(r.pages) == 2}
        assert set(self.slots.seconds) == guided, "second canvases"
        assert all(r.pages == self.slots.pages(self.requests[i]) for i, r in self.active.items()), "pages changed"
        self.slots.check_integrity([running.pages for running in self.active.values()])
        return len(self.requests)
