"""What this device can do, measured: the floors that a pass is held against."""

import statistics
import time
from collections.abc import Callable

import torch

from vllm_dllm.compare.random_weights import Shape


def seconds(function: Callable[[], object], repeats: int = 10) -> float:
    """The median time of a call on the device."""
    function()
    if not torch.cuda.is_available():
        return statistics.median(_host_seconds(function) for _ in range(3))
    spans = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        spans.append((begin, end))
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in spans) / 1e3


def _host_seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


@torch.inference_mode()
def measure(shape: Shape, weights: dict[str, torch.Tensor], most: int) -> dict:
    """`most` is the number of positions of the largest step that is timed."""
    device = weights["model.transformer.ln_f.weight"].device
    numbers = (1 << 30) if device.type == "cuda" else (1 << 22)
    source = torch.randint(256, (numbers,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * numbers / seconds(lambda: target.copy_(source))
    layers = [w for name, w in weights.items() if w.dim() == 2 and "wte" not in name]
    found = {"copy, GB/s": copy / 1e9, "multiplied by in a pass, GB": sum(w.numel() for w in layers) * 2 / 1e9}

    few = {size: _rows(32, size, device) for size in (shape.width, shape.feed_forward)}

    def stream() -> None:
        for w in layers:
            torch.mm(few[w.shape[1]], w.t())

    found["every matrix by 32 rows, ms"] = seconds(_replayed(stream, device)) * 1e3
    many = {size: _rows(most, size, device) for size in (shape.width, shape.feed_forward)}
    layer = [w for name, w in weights.items() if ".blocks.0." in name and w.dim() == 2]

    def multiply() -> None:
        for w in layer:
            torch.mm(many[w.shape[1]], w.t())

    operations = 2 * most * sum(w.numel() for w in layer)
    found["rows of the next"], found["TFLOP/s"] = most, operations / seconds(multiply) / 1e12
    rows = _rows(2048 if device.type == "cuda" else 32, shape.width, device)
    head = weights["model.transformer.ff_out.weight"]
    found[f"the head by {len(rows)} rows, ms"] = seconds(lambda: torch.mm(rows, head.t())) * 1e3
    return found


def _rows(number: int, size: int, device: torch.device) -> torch.Tensor:
    return torch.randn(number, size, dtype=torch.bfloat16, device=device)


def _replayed(function: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """On CUDA as a graph, so that launches do not count."""
    if device.type != "cuda":
        return function
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def floor(shape: Shape, found: dict, requests: int, positions: int, canvas: int, rows: int) -> float:
    """Seconds below which a step cannot be at the rates that were `found`: the longer of reading and multiplying.

    Every request computes so many positions of its canvas and reads so many rows. Read are all matrices and the
    keys and values of the canvases; softmax, norms and what is written are left out.
    """
    read = 2 * (shape.pass_parameters + requests * canvas * shape.slot_numbers)
    layers = shape.layers * (shape.layer_parameters + 2 * canvas * shape.width)
    operations = 2 * requests * (positions * layers + rows * shape.vocabulary * shape.width)
    return max(read / (found["copy, GB/s"] * 1e9), operations / (found["TFLOP/s"] * 1e12))
