"""Requests decoded over a loaded checkpoint, without an engine: the scheduler's parts, and the worker's runner."""

from collections.abc import Sequence

import numpy as np
import torch
from common import EOS
from loaded import PAGE, Loaded
from vllm.config import set_current_vllm_config

from vllm_dllm.decoding import Decoding, Sampling
from vllm_dllm.engine_config import model_traits, server_settings
from vllm_dllm.packing import pack

torch.set_num_threads(1)  # a pass is too small to share: threads would only wait for each other


def new_decoding(
    loaded: Loaded, prompt_ids: Sequence[int], gen_length: int, settings: dict, stop: bool = False
) -> Decoding:
    """A request, greedy. `stop`: its end token counts, for policies that look for it."""
    config, ends = loaded.config, frozenset([EOS]) if stop else frozenset()
    asked, traits = server_settings(config).of_request(settings), model_traits(config)
    return Decoding(prompt_ids, gen_length, asked, Sampling(end_ids=ends), traits, PAGE, recorded=True)


def decode(loaded: Loaded, requests: Sequence[Decoding], stop_at_eos: bool = False) -> None:
    """All of them to their ends, every pass of all that are due in one batch; with `stop_at_eos` to the EOS that ends
    the final prefix."""
    pages, free = [], 1
    for request in requests:
        count = -(-request.canvas.length // PAGE)
        pages.append(list(range(free, free + count)))
        free += count
    due = list(range(len(requests)))
    while due:
        passes = [requests[i].plan() for i in due]
        batch = pack(passes, [pages[i] for i in due])
        with set_current_vllm_config(loaded.config):
            seen = loaded.runner.run(batch, [str(i) for i in due]).get_output().observation
        for line, (i, planned) in enumerate(zip(due, passes, strict=True)):
            start, stop = batch.read_starts[line : line + 2].tolist()
            requests[i].finish(planned, seen.of_request(line, start, stop, planned.reads))
        due = [i for i in due if not _done(requests[i], stop_at_eos)]


def _done(request: Decoding, stop_at_eos: bool) -> bool:
    canvas = request.canvas
    return canvas.done or (stop_at_eos and bool(np.isin(EOS, canvas.response[: canvas.final])))
