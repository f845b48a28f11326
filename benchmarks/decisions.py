"""What the caching policies' decisions cost: their share of a step.

    python benchmarks/decisions.py --random 200M --requests 16
    python benchmarks/decisions.py --model checkpoints/tiny-llada

Runs each policy with 16 requests in flight and the engine core in this process, where every method of a policy
that the engine calls is timed. (What elastic and d2 measure in the attention is part of the forward, not of this.)
Prints a Markdown table.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import wraps

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # read when vLLM is imported

from random_model import add_model, random_model
from vllm import LLM, SamplingParams

from vllm_dllm.caching import CachePolicy
from vllm_dllm.caching.registry import FULL

METHODS = ("mark", "positions", "probe", "reads", "complete", "observe", "signals")
CANVAS, RESPONSE = 512, 64


class Stopwatch:
    """Seconds spent in the functions it wraps, those called from each other counted once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.inside = False

    def wrap(self, function: Callable) -> Callable:
        @wraps(function)
        def timed(*args, **kwargs):
            if self.inside:
                return function(*args, **kwargs)
            self.inside = True
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin
                self.inside = False

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model(parser)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--steps", type=int, default=16, help="passes of a request")
    args = parser.parse_args()

    watch = Stopwatch()
    for policy in (CachePolicy, *FULL.values()):
        for name in METHODS:
            if name in vars(policy):
                setattr(policy, name, watch.wrap(vars(policy)[name]))
    llm = LLM(
        str(random_model(args.random) if args.random else args.model),
        dtype="float32",
        skip_tokenizer_init=True,
        max_model_len=CANVAS,
        max_num_seqs=args.requests,
        max_num_batched_tokens=args.requests * CANVAS,
        kv_cache_memory_bytes=1 << 30,
        additional_config={"dllm_hidden_cache": True},
    )
    prompt = {"prompt_token_ids": [7] * (CANVAS - RESPONSE)}
    print("| cache | ms/step | us of decisions a pass | share of a step |\n| --- | ---: | ---: | ---: |")
    for name in FULL:
        settings = FULL[name].example | {"dllm_cache": name, "dllm_tokens_per_step": RESPONSE // args.steps}
        params = SamplingParams(
            temperature=0, max_tokens=RESPONSE, ignore_eos=True, detokenize=False, extra_args=settings
        )
        for i in range(args.requests):
            llm.llm_engine.add_request(f"{name}-{i}", prompt, params)
        watch.seconds, steps, begin = 0.0, 0, time.perf_counter()
        while llm.llm_engine.has_unfinished_requests():
            llm.llm_engine.step()
            steps += 1
        wall = time.perf_counter() - begin
        passes = steps * args.requests
        print(
            f"| `{name}` | {wall / steps * 1e3:.1f} | {watch.seconds / passes * 1e6:.0f} "
            f"| {watch.seconds / wall:.2%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
