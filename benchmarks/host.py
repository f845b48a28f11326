"""What a pass costs the host, beside a step of vLLM's own autoregressive engine of the same size, in one run.

    python benchmarks/host.py --model checkpoints/tiny-llada
    python benchmarks/host.py --model checkpoints/tiny-llada --played-back
    python benchmarks/host.py --random 200M --policies dual,entropy --concurrency 64

Everything runs in one thread of one process: front end, scheduler, worker, read-out. What is measured is that thread's
processor time outside the model's layers and its output head, for each request and pass (for vLLM's engine: request
and step), so that other load on the machine counts little. The engines take turns; a number is the median over the
rounds.

Here the forward throws the host's code and data out of the processor's caches, the more rows it has the more, and what
follows pays for it. A GPU's does not. With `--played-back` layers and head give what they gave in the first round, at
no time: the host does the same work for the same tokens, and nothing else.

Prints a Markdown table:

    us          microseconds for each request and pass (or step)
    of vLLM's   that of vLLM's engine at the same concurrency
    a token     the same for each token
    read-out    microseconds of it in which tokens and what they are judged by are read of the logits: on a GPU a kernel
"""

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # read when vLLM is imported

from pass_cost import engine, llama_folder  # noqa: E402
from random_model import add_model, random_model  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402

from vllm_dllm.caching.registry import POLICIES  # noqa: E402
from vllm_dllm.worker.layerwise import LayerwiseForward  # noqa: E402
from vllm_dllm.worker.model_runner import DllmModelRunner  # noqa: E402

PROMPT, RESPONSE = 64, 128


class Clock:
    """Processor time of this thread, and how much of it was spent in the functions that it watches."""

    def __init__(self) -> None:
        self.inside = 0.0
        self.requests = 0  # request-passes
        self.results: list | None = None  # what they give is written down here,
        self.played: Iterator | None = None  # or played back from here
        self._depth = 0

    def watch(self, owner, name: str, written: Callable = copy.deepcopy) -> None:
        """`written`: what is written down of a result."""
        function = getattr(owner, name)

        def watched(*args, **kwargs):
            if self.played is not None and not self._depth:
                return next(self.played)
            self._depth += 1
            begin = time.thread_time()
            try:
                result = function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.inside += time.thread_time() - begin
            if self.results is not None and not self._depth:
                self.results.append(written(result))
            return result

        setattr(owner, name, watched)

    def count(self, runner) -> None:
        execute: Callable = runner.execute_model

        def counted(scheduler_output, *args, **kwargs):
            self.requests += len(scheduler_output.num_scheduled_tokens)
            return execute(scheduler_output, *args, **kwargs)

        runner.execute_model = counted


def clocks_of(llm: LLM) -> tuple[Clock, Clock]:
    """Of the layers and the head, and of the read-out."""
    clock, reads = Clock(), Clock()
    worker = llm.llm_engine.model_executor.driver_worker.worker
    model, runner = worker.get_model(), worker.model_runner
    # only the head reads these, or nobody where that is played back
    clock.watch(model, "forward", written=lambda hidden: hidden.new_zeros(1).expand(hidden.shape))
    clock.watch(model, "compute_logits")
    clock.count(runner)
    if isinstance(runner, DllmModelRunner):
        # policies that look into the attention run the layers one by one, without the model's own forward
        clock.watch(LayerwiseForward, "__call__")
        reads.watch(runner.reader, "kernel")
    else:
        reads.watch(runner.sampler, "forward")
    return clock, reads


def measure(llm: LLM, clock: Clock, reads: Clock, requests: int, params: SamplingParams) -> tuple[float, float]:
    """Seconds outside the forward for each request and pass, and those of them in the read-out."""
    core = llm.llm_engine
    for i in range(requests):
        core.add_request(str(i), {"prompt_token_ids": [7 + i % 64] * PROMPT}, params)
    core.step()  # the first step of vLLM's engine is a prefill, and ours a full pass
    clock.inside, clock.requests, reads.inside = 0.0, 0, 0.0
    begin = time.thread_time()
    while core.has_unfinished_requests():
        core.step()
    return (time.thread_time() - begin - clock.inside) / clock.requests, reads.inside / clock.requests


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model(parser)
    parser.add_argument("--policies", default="none,dual,entropy,elastic,d2", help="with commas")
    parser.add_argument("--concurrency", default="1,16,64", help="requests in flight, with commas")
    parser.add_argument("--tokens", type=int, default=4, help="tokens a pass")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--played-back", action="store_true", help="layers and head as if another device computed them")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    llada = random_model(args.random) if args.random else args.model
    levels = [int(level) for level in args.concurrency.split(",")]
    one_process = {"distributed_executor_backend": "uni"}
    with tempfile.TemporaryDirectory() as folder:
        plain = engine(llama_folder(llada, Path(folder)), args, max(levels), load_format="dummy", **one_process)
        ours = engine(llada, args, max(levels), additional_config={"dllm_hidden_cache": True}, **one_process)
    clocks = {id(llm): clocks_of(llm) for llm in (plain, ours)}
    common = {"temperature": 0, "max_tokens": RESPONSE, "ignore_eos": True, "detokenize": False}
    rows: list[tuple[str, LLM, SamplingParams]] = [("vLLM's engine", plain, SamplingParams(**common))]
    for name in args.policies.split(","):
        settings = POLICIES[name].example | {"dllm_cache": name, "dllm_tokens_per_step": args.tokens}
        rows.append((f"`{name}`", ours, SamplingParams(**common, extra_args=settings)))
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    results: dict[tuple[str, int], list] = {}
    for round_ in range(args.rounds + 1):  # the first warms up
        for level in levels:
            for name, llm, params in rows:
                clock, reads = clocks[id(llm)]
                if args.played_back:
                    kept = results.setdefault((name, level), [])
                    clock.results, clock.played = (None, iter(kept)) if round_ else (kept, None)
                one = measure(llm, clock, reads, level, params)
                if round_:
                    found.setdefault((name, level), []).append(one)
    print("| | concurrency | us | of vLLM's | a token | read-out |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for level in levels:
        base = statistics.median(seconds for seconds, _ in found[rows[0][0], level])
        for name, llm, _ in rows:
            seconds, reading = (statistics.median(column) for column in zip(*found[name, level], strict=True))
            tokens = 1 if llm is plain else args.tokens
            print(
                f"| {name} | {level} | {seconds * 1e6:.0f} | {seconds / base:.2f} | {seconds / base / tokens:.2f} "
                f"| {reading * 1e6:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
