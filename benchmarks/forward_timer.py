"""What the engine's own processes measure for the benchmark: a worker extension, no part of the engine."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from communication import CommunicationCounter

from vllm_dllm.worker.layerwise import LayerwiseForward


class ForwardTimer:
    """Methods that vLLM adds to its worker (`worker_extension_cls`), called by `LLM.collective_rpc`.

    "Forward" is the model's layers and its output head. On CUDA it is the time between two events on
    the stream, so that nothing waits which would not wait without a timer.
    """

    def start_forward_timer(self) -> None:
        """Begin counting from zero."""
        if not hasattr(self, "_forward_spans"):
            self._wrap()
        self._forward_spans.clear()
        self._worker_spans.clear()
        self._passes = 0

    def read_forward_timer(self) -> dict[str, float]:
        """Since the start: `steps`, `passes` (a step holds one of every running request), and seconds in
        the model's forward (`forward`) and in the worker altogether (`worker`)."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            forward = sum(begin.elapsed_time(end) for begin, end in self._forward_spans) / 1000
        else:
            forward = sum(end - begin for begin, end in self._forward_spans)
        worker = sum(end - begin for begin, end in self._worker_spans)
        return {"steps": len(self._worker_spans), "passes": self._passes, "forward": forward, "worker": worker}

    def _wrap(self) -> None:
        self._forward_spans: list[tuple[Any, Any]] = []
        self._worker_spans: list[tuple[float, float]] = []
        self._passes = 0
        clock = _event if self.device.type == "cuda" else time.perf_counter
        model, runner = self.get_model(), self.model_runner
        model.forward = _timed(model.forward, clock, self._forward_spans)
        model.compute_logits = _timed(model.compute_logits, clock, self._forward_spans)
        # policies that measure attention run the layers one by one, without the model's own forward
        LayerwiseForward.__call__ = _timed(LayerwiseForward.__call__, clock, self._forward_spans)
        step = _timed(runner.execute_model, time.perf_counter, self._worker_spans)

        def execute_model(scheduler_output, *args):
            if not scheduler_output.num_scheduled_tokens:
                return untimed(scheduler_output, *args)
            self._passes += len(scheduler_output.num_scheduled_tokens)
            return step(scheduler_output, *args)

        untimed, runner.execute_model = runner.execute_model, execute_model


class Measurements(ForwardTimer, CommunicationCounter):
    """Both: a worker takes one extension."""


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _timed(function: Callable, clock: Callable[[], Any], spans: list) -> Callable:
    @wraps(function)
    def timed(*args, **kwargs):
        begin = clock()
        result = function(*args, **kwargs)
        spans.append((begin, clock()))
        return result

    return timed
