"""Where the processor time of a step goes, by operator: products, attention, and what there is besides.

    OMP_NUM_THREADS=1 python benchmarks/operators.py --model checkpoints/tiny-llada --cache none,dual --concurrency 1,16
    OMP_NUM_THREADS=1 python benchmarks/operators.py --random 200M --requests 2 --dtype bfloat16 --steps-per-block 4

The requests of throughput.py, with everything in one thread of one process, whose processor time is measured, so that
other load on the machine counts little. Python's own time between the operators is a row of its own; the profiler makes
it look longer than it is. Prints a Markdown table for each cache and concurrency: ms a step, and the share of it.
"""

import argparse
import cProfile
import os
import time
from collections import Counter
from pathlib import Path

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # read when vLLM is imported

from random_model import add_model, random_model
from throughput import make_requests, params_of, policies
from vllm import LLM

from vllm_dllm.compare.answers import answer

NAMES = {
    "onednn_mm": "products",
    "weight_packed_linear": "products",
    "cpu_attention_with_kv_cache": "attention",
    "cpu_attn_reshape_and_cache": "keys and values into pages",
    "cpu_fused_moe": "experts",
    "silu": "activation",
    "mul_": "activation",
    "rms_norm": "norms",
    "fused_add_rms_norm": "norms",
    "rotary_embedding": "rotation",
    "float": "rotation: to float32",
    "to": "rotation: from float32",
    "embedding": "embedding",
}
OUTSIDE = "outside the forward"


class ForwardProfile:
    """Processor time of this thread: in the operators of the model's forward, and altogether."""

    def __init__(self, llm: LLM):
        worker = llm.llm_engine.model_executor.driver_worker.worker
        model, runner = worker.get_model(), worker.model_runner
        for name in ("forward", "compute_logits"):
            setattr(model, name, self._watched(getattr(model, name)))
        self.execute, runner.execute_model = runner.execute_model, self._counted
        self.start()

    def start(self) -> None:
        self.profile = cProfile.Profile(time.thread_time)
        self.steps, self.begin = 0, time.thread_time()

    def _watched(self, function):
        def watched(*args, **kwargs):
            self.profile.enable()
            try:
                return function(*args, **kwargs)
            finally:
                self.profile.disable()

        return watched

    def _counted(self, scheduler_output, *args):
        self.steps += bool(scheduler_output.num_scheduled_tokens)
        return self.execute(scheduler_output, *args)

    def seconds(self) -> Counter:
        """By what took them."""
        whole = time.thread_time() - self.begin
        found: Counter = Counter()
        for entry in self.profile.getstats():
            word = str(entry.code).rstrip(">").split(" of ")[0].split(".")[-1].split()[-1].strip("'")
            builtin = isinstance(entry.code, str)
            found[NAMES.get(word, "other operators") if builtin else "Python between them"] += entry.inlinetime
        found[OUTSIDE] = whole - sum(found.values())
        return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model(parser)
    parser.add_argument("--cache", type=policies, default=["none", "dual"], help="caching policies, with commas")
    parser.add_argument("--concurrency", default="1,16", help="requests in flight, with commas")
    parser.add_argument("--requests", type=int, default=32, help="at each concurrency, at least that many")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--steps-per-block", type=int, help="fixed steps instead of the threshold")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.block_length = 32
    folder: Path = random_model(args.random) if args.random else args.model
    levels = [int(level) for level in args.concurrency.split(",")]
    requests = make_requests(args, folder, max(args.requests, *levels))
    llm = LLM(
        str(folder),
        dtype=args.dtype,
        skip_tokenizer_init=bool(args.random),
        max_model_len=512,
        max_num_seqs=max(levels),
        max_num_batched_tokens=512 * max(levels),
        kv_cache_memory_bytes=1 << 30,
        distributed_executor_backend="uni",
        additional_config={"dllm_block_length": args.block_length},
    )
    profile = ForwardProfile(llm)
    for cache in args.cache:
        for level in levels:
            chosen = requests[: max(level, args.requests)]
            asked = [({"prompt_token_ids": r.prompt_ids}, params_of(args, cache, r)) for r in chosen]
            answer(llm, asked[: 2 * level], level)  # warms up
            profile.start()
            answer(llm, asked, level)
            found = profile.seconds()
            whole = found.total()
            print(f"\n| `{cache}`, {level} | ms/step | share |\n| --- | ---: | ---: |")
            for name, seconds in found.most_common():
                print(f"| {name} | {seconds / profile.steps * 1e3:.2f} | {seconds / whole:.1%} |", flush=True)


if __name__ == "__main__":
    main()
