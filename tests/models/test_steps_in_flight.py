"""Steps whose inputs are filled while those before them wait for the device: each finds its own."""

from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from loaded import PAGE

from vllm_dllm.messages import Batch
from vllm_dllm.worker import buffers as module
from vllm_dllm.worker.buffers import Shape, StepBuffers

REQUESTS, TOKENS, PAGES = 8, 64, 4


class Stream:
    """What a device has been told to do and has not done yet, in order."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], object]] = deque()

    def do(self, most: int) -> None:
        for _ in range(min(most, len(self.waiting))):
            self.waiting.popleft()()


class Event:
    """As CUDA has it: it is recorded behind all that the stream waits to do, and to wait for it is to do all that."""

    def __init__(self, stream: Stream):
        self.stream = stream
        self.done = True

    def record(self) -> None:
        self.done = False
        self.stream.waiting.append(partial(setattr, self, "done", True))

    def synchronize(self) -> None:
        while not self.done:
            self.stream.do(1)


class Memory:
    """A device's: what is copied there comes when the stream gets to it."""

    def __init__(self, stream: Stream, tensor: torch.Tensor):
        self.stream, self.tensor = stream, tensor

    def __getitem__(self, part: slice) -> "Memory":
        return Memory(self.stream, self.tensor[part])

    def copy_(self, source: torch.Tensor, non_blocking: bool) -> None:
        assert non_blocking
        self.stream.waiting.append(lambda: self.tensor.copy_(source))


def on_a_device(stream: Stream, events: bool = True) -> StepBuffers:
    """Buffers as on a GPU, over `stream`; without `events` nobody waits for a copy."""
    made = StepBuffers(Shape(TOKENS, REQUESTS, PAGES), PAGE, torch.device("cpu"))
    tensor = made.device
    made.on_cpu = False
    made.hosts = [torch.zeros_like(tensor) for _ in range(2)]
    made.copied = [Event(stream if events else Stream()) for _ in made.hosts]
    made.device = Memory(stream, tensor)
    made.views = partial(module._views, tensor, made.hosts)
    return made


def batch(rng: np.random.Generator) -> Batch:
    counts = rng.integers(1, TOKENS // REQUESTS, rng.integers(1, REQUESTS + 1))
    starts = np.cumsum([0, *counts]).astype(np.int32)
    return Batch(
        positions=rng.integers(0, PAGES * PAGE, starts[-1]).astype(np.int32),
        token_ids=rng.integers(0, 1000, starts[-1]).astype(np.int32),
        query_starts=starts,
        ends=rng.integers(1, PAGES * PAGE, len(counts)).astype(np.int32),
        block_table=rng.integers(1, 1000, (len(counts), PAGES)).astype(np.int32),
        places=np.arange(0, dtype=np.int32),
        read_starts=starts * 0,
        readouts=[],
    )


def steps_that_found_others(buffers: StepBuffers, stream: Stream, most: int, seed: int) -> int:
    """Of 60 steps with up to `most` in flight. A step's kernels read the device's arrays when the stream gets to them."""
    rng, wrong = np.random.default_rng(seed), []
    ended: list[int] = []
    for number in range(60):
        step = batch(rng)
        inputs = buffers.fill(step, Shape(TOKENS, REQUESTS, PAGES) if rng.random() < 0.5 else None)
        assert np.array_equal(inputs.ends[: len(step.ends)], step.ends), "what the host reads while it launches"

        def kernels(number=number, step=step, arrays=inputs.device) -> None:
            tokens, requests = len(step.positions), len(step.ends)
            pairs = [
                (arrays.positions[:tokens], step.positions),
                (arrays.token_ids[:tokens], step.token_ids),
                (arrays.query_starts[: requests + 1], step.query_starts),
                (arrays.ends[:requests], step.ends),
                (arrays.block_table[:requests], step.block_table),
            ]
            if not all(np.array_equal(found.numpy(), own) for found, own in pairs):
                wrong.append(number)
            ended.append(number)

        stream.waiting.append(kernels)
        stream.do(int(rng.integers(0, 3)))
        while number + 1 - len(ended) >= most:  # the host waits for the output of the oldest one
            stream.do(1)
    stream.do(len(stream.waiting))
    assert ended == list(range(60))
    return len(wrong)


@pytest.mark.parametrize("most", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_each_step_finds_its_own_arrays(most, seed):
    stream = Stream()
    assert steps_that_found_others(on_a_device(stream), stream, most, seed) == 0


def test_without_waiting_for_copies_they_would_not():
    """Where three steps are in flight: else the test above would show nothing."""
    stream = Stream()
    assert steps_that_found_others(on_a_device(stream, events=False), stream, 8, seed=0) > 0
