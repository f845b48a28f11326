"""An offline engine that answers prompts, and what each answer took."""

import json
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind


@dataclass(frozen=True)
class Answer:
    """One request's response."""

    text: str
    token_ids: list[int]  # up to its end, end token included
    passes: int
    computed: float  # positions, over all passes (a mean over the layers where they compute different numbers)


@dataclass(frozen=True)
class Run:
    """The answers to some requests, in their order, and the seconds from the first one's start to the last one's end."""

    answers: list[Answer]
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(len(a.token_ids) for a in self.answers)

    @property
    def passes(self) -> int:
        return sum(a.passes for a in self.answers)

    @property
    def computed(self) -> int:
        return round(sum(a.computed for a in self.answers))


Request = tuple[Any, SamplingParams]  # a prompt as vLLM's engine takes it, and its parameters


def answer(
    llm: LLM,
    requests: Sequence[Request],
    in_flight: int = 0,
    until: float | None = None,
    finished: Callable[[Any], None] = lambda output: None,
) -> tuple[list[Any], float] | None:
    """The requests' outputs (vLLM's `RequestOutput`) in their order, and the seconds it took.

    So many are `in_flight` at any time; 0: as many as the engine runs. `finished` is told each one that has ended. At
    `until` (of `time.monotonic`) what is not finished is aborted, and there is no result.
    """
    engine = llm.llm_engine
    waiting, running = deque(enumerate(requests)), {}
    outputs: list[Any] = [None] * len(requests)
    begin = time.perf_counter()
    while waiting or running:
        while waiting and (not in_flight or len(running) < in_flight):
            number, (prompt, params) = waiting.popleft()
            params.output_kind = RequestOutputKind.FINAL_ONLY
            name = str(next(llm.request_counter))
            engine.add_request(name, prompt, params)
            running[name] = number
        for output in engine.step():
            if output.finished:
                outputs[running.pop(output.request_id)] = output
                finished(output)
        if until is not None and time.monotonic() > until and (waiting or running):
            engine.abort_request(list(running))
            while engine.has_unfinished_requests():
                engine.step()
            return None
    return outputs, time.perf_counter() - begin


def computed_tokens(trace: dict[str, Any]) -> float:
    """Positions that a request's passes computed; a mean over the layers where they compute different numbers."""
    if "layer_tokens" in trace:
        return sum(sum(layers) / len(layers) for layers in trace["layer_tokens"])
    return sum(trace["query_tokens"])


class Bench:
    """An engine whose trace says what each answer took. `arguments` are those of vLLM's `LLM`."""

    def __init__(self, trace: Path, additional_config: dict[str, Any] | None = None, **arguments: Any):
        self.trace = trace
        trace.touch()
        self.llm = LLM(additional_config={**(additional_config or {}), "dllm_trace": str(trace)}, **arguments)

    def close(self) -> None:
        self.llm.llm_engine.engine_core.shutdown()

    def encode(self, turn: str) -> dict[str, list[int]]:
        """One user turn as the model's chat template has it."""
        chat = [{"role": "user", "content": turn}]
        ids = self.llm.get_tokenizer().apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return {"prompt_token_ids": ids}

    def run(self, requests: Sequence[Request], **how: Any) -> Run | None:
        """Their answers; `how` is what `answer` takes besides."""
        before = self.trace.stat().st_size
        answered = answer(self.llm, requests, **how)
        if answered is None:
            return None
        outputs, seconds = answered
        with self.trace.open() as file:
            file.seek(before)
            traces = {line["request_id"]: line for line in map(json.loads, file)}
        return Run([_answer(o, traces[o.request_id]) for o in outputs], round(seconds, 3))


def _answer(output: Any, trace: dict[str, Any]) -> Answer:
    response = output.outputs[0]
    return Answer(response.text, list(response.token_ids), len(trace["query_tokens"]), computed_tokens(trace))


def machine() -> str:
    """In words, without names: what the speed was measured on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{len(os.sched_getaffinity(0))} cores of a {platform.machine()} CPU"
