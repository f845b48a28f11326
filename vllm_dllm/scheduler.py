"""The diffusion scheduler: it owns every request's decoding, plans passes, and packs them into steps."""

from typing import Any

import numpy as np
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import CachedRequestData
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreEventType
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.outputs import LogprobsLists
from vllm.v1.request import Request, RequestStatus

from vllm_dllm.batch import make_batch
from vllm_dllm.caching import Plan
from vllm_dllm.decoding import Decoding, Sampling
from vllm_dllm.engine_config import model_traits
from vllm_dllm.failed import NOT_FINITE, add_failed, end_failed
from vllm_dllm.metrics import StepCounts
from vllm_dllm.settings import check_server, given, resolve
from vllm_dllm.trace import Trace
from vllm_dllm.vllm_messages import DllmModelRunnerOutput, DllmSchedulerOutput


class DllmScheduler(Scheduler):
    """vLLM's scheduler with the schedule of diffusion decoding.

    A request takes the KV slots of its whole canvas when it is admitted and keeps them until it ends, so
    a running request is never preempted. Each step holds one pass of every running request, as far as
    the token budget goes; those left out come first in the next step.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.traits = model_traits(self.vllm_config)
        self.server_settings = check_server(self.vllm_config.additional_config, self.traits)
        self.decodings: dict[str, Decoding] = {}
        trace = self.server_settings.get("dllm_trace")
        self.trace = Trace(trace) if trace else None
        self.counts = StepCounts()
        self.failed: dict[str, str] = {}  # requests to be ended with an error, and why

    # ---- one step out ----

    def schedule(self, throttle_prefills: bool = False) -> DllmSchedulerOutput:
        self.current_step += 1
        due, waiting = self._pack()
        if self.pause_state == PauseState.UNPAUSED and not waiting:
            due += self._admit(self.max_num_scheduled_tokens - sum(self._next_pass(r).most_tokens for r in due))
        self.running = waiting + due

        scheduled = {r.request_id: len(self._next_pass(r).queries) for r in due}
        for request in due:
            request.num_in_flight_tokens += scheduled[request.request_id]
        decodings = [self.decodings[r.request_id] for r in due]
        output = DllmSchedulerOutput(
            scheduled_new_reqs=[],  # a batch says all there is to know: the worker keeps no request
            scheduled_cached_reqs=CachedRequestData.make_empty(),
            num_scheduled_tokens=scheduled,
            total_num_scheduled_tokens=sum(scheduled.values()),
            scheduled_spec_decode_tokens={},
            scheduled_encoder_inputs={},
            finished_req_ids=self.finished_req_ids,
            free_encoder_mm_hashes=[],
            batch=make_batch(decodings, [self._pages(r) for r in due]) if due else None,
        )
        self.finished_req_ids = set()
        return output

    def _next_pass(self, request: Request) -> Plan:
        return self.decodings[request.request_id].next_pass()

    def _pack(self) -> tuple[list[Request], list[Request]]:
        """The running requests whose pass is in this step, and those that wait for the next one.

        Those that have waited longest come first, then the refreshes whose mark is oldest. A refresh that
        does not fit goes on with a partial pass instead, as long as its `dllm_max_delay` lasts.
        """
        if self.pause_state == PauseState.PAUSED_ALL:
            return [], self.running
        budget = self.max_num_scheduled_tokens
        due: list[Request] = []
        waiting: list[Request] = []
        passes = [(r, self.decodings[r.request_id]) for r in self.running]
        if sum(d.next_pass().most_tokens for _, d in passes) > budget:
            passes.sort(key=lambda item: (item[1].waited, item[1].pages.oldest_mark), reverse=True)
        for request, decoding in passes:
            plan = decoding.next_pass()
            if plan.most_tokens > budget:
                plan = decoding.postpone() or plan
            if plan.most_tokens > budget:
                waiting.append(request)
                decoding.waited += 1
            else:
                due.append(request)
                decoding.waited = 0
                budget -= plan.most_tokens
        return due, waiting

    def _admit(self, budget: int) -> list[Request]:
        """Waiting requests, in their order, as long as slots and `budget` last."""
        admitted: list[Request] = []
        while self.waiting and len(self.running) + len(admitted) < self.max_num_active_reqs:
            request = self.waiting.peek_request()
            canvas_len = request.num_prompt_tokens + request.max_tokens
            if canvas_len > budget:
                break
            others = bool(self.running or admitted)
            if self.kv_cache_manager.allocate_slots(request, canvas_len, has_scheduled_reqs=others) is None:
                break
            self.waiting.pop_request()
            self.decodings[request.request_id] = self._start(request)
            request.status = RequestStatus.RUNNING
            if self.log_stats:
                request.record_event(EngineCoreEventType.SCHEDULED)
            if request.prefill_stats is not None:
                request.prefill_stats.set(request.num_prompt_tokens, 0, 0)  # none of it came from a cache
            budget -= canvas_len
            admitted.append(request)
        return admitted

    def _start(self, request: Request) -> Decoding:
        params = request.sampling_params
        sampling = Sampling(
            params.temperature, params.top_k, params.top_p, params.seed, params.num_logprobs, params.eos_token_id
        )
        settings = resolve(self.server_settings, given(params.extra_args), self.traits)
        return Decoding(request.prompt_token_ids, request.max_tokens, settings, sampling, self.traits, self.block_size)

    def _pages(self, request: Request) -> list[int]:
        return self.kv_cache_manager.get_block_ids(request.request_id)[0]

    # ---- one step back ----

    def update_from_output(self, scheduler_output, model_runner_output):
        """Unmask, then hand the tokens that became final to vLLM's own stop, output and streaming code."""
        assert isinstance(scheduler_output, DllmSchedulerOutput)
        if scheduler_output.batch is not None:
            assert isinstance(model_runner_output, DllmModelRunnerOutput)
            self._observe(scheduler_output, model_runner_output)
        failed = end_failed(self, self.failed)
        self.failed = {}
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        add_failed(outputs, failed)
        return outputs

    def _observe(self, step: DllmSchedulerOutput, output: DllmModelRunnerOutput) -> None:
        batch, seen = step.batch, output.observation
        assert batch is not None and seen is not None
        logprobs = []
        starts = batch.row_starts.tolist()
        output.sampled_token_ids = []
        for i, req_id in enumerate(output.req_ids):
            decoding = self.decodings.get(req_id)
            tokens: list[int] = []
            if decoding is not None and not np.isfinite(seen.confidence[starts[i] : starts[i + 1]]).all():
                self.failed[req_id] = NOT_FINITE
            elif decoding is not None:  # None: it was aborted while its pass ran
                decoding.finish_pass(seen.of_request(i, starts[i], starts[i + 1], decoding.next_pass().reads))
                self.counts.add_pass(req_id, decoding)
                first = decoding.sent
                tokens = decoding.take_tokens()
                if decoding.logprobs is not None:
                    logprobs.append((i, decoding.logprobs[first : decoding.sent]))
            output.sampled_token_ids.append(tokens)
        if logprobs:
            output.logprobs = _logprobs_lists(logprobs, len(output.req_ids))

    def make_stats(self, *args: Any, **kwargs: Any) -> SchedulerStats | None:
        stats = super().make_stats(*args, **kwargs)
        if stats is not None:
            stats.waiting_lora_adapters = self.counts.take()  # the carrier: metrics.py says why
        return stats

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        """No prefix is cached. Where running requests must not go on with their keys and values (new weights),
        they keep their canvases and recompute everything in the next pass."""
        if reset_running_requests:
            for decoding in self.decodings.values():
                decoding.refresh()
        return True

    # ---- the end of a request ----

    def _free_request(self, request: Request, delay_free_blocks: bool = False):
        decoding = self.decodings.pop(request.request_id, None)
        if decoding is not None:
            self.counts.end_request(request.request_id, decoding)
            if self.trace is not None:
                self.trace.write(request, decoding)
        return super()._free_request(request, delay_free_blocks)

    def check_integrity(self) -> int:
        """How many requests there are. Raises AssertionError unless they, decodings and KV blocks agree."""
        running = {r.request_id for r in self.running}
        assert len(running) == len(self.running), "a request runs twice"
        assert running == set(self.decodings), f"decodings {set(self.decodings)} of running requests {running}"
        waiting = {r.request_id for r in self.waiting}
        assert not running & waiting, "a request runs and waits"
        assert running | waiting == set(self.requests), "a request neither runs nor waits"
        pool = self.kv_cache_manager.block_pool
        held = [page for r in self.running for page in self._pages(r)]
        assert len(held) == len(set(held)), "a page belongs to two requests"
        free = pool.get_num_free_blocks()
        usable = pool.num_gpu_blocks - 1  # vLLM keeps page 0 as its null block
        assert free + len(held) == usable, f"{len(held)} pages held and {free} free, of {usable}"
        return len(self.requests)


def _logprobs_lists(parts: list[tuple[int, list[Any]]], num_requests: int) -> LogprobsLists:
    """vLLM's form: rows of all requests one after the other, padded to the most log probabilities asked for."""
    rows = [row for _, part in parts for row in part]
    width = max((len(ids) for ids, _, _ in rows), default=1)
    ids = np.zeros((len(rows), width), np.int32)
    logprobs = np.full((len(rows), width), -np.inf, np.float32)
    for i, (row_ids, row_logprobs, _) in enumerate(rows):
        ids[i, : len(row_ids)] = row_ids
        logprobs[i, : len(row_ids)] = row_logprobs
    counts = dict((i, len(part)) for i, part in parts)
    starts = np.cumsum([0] + [counts.get(i, 0) for i in range(num_requests)]).tolist()
    return LogprobsLists(ids, logprobs, np.asarray([rank for _, _, rank in rows], np.int32), starts)
