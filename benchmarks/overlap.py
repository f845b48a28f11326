"""What it brings to have two sets of requests in flight by turns (`dllm_overlap`), in one run.

    python benchmarks/overlap.py --model checkpoints/tiny-llada
    python benchmarks/overlap.py --random 200M --concurrency 16 --policies dual

An engine for each of `off`, `on` and `auto`; they take turns, on the same requests, so many in flight at any time, and
another one begins in each round. A number is the median over the rounds, so that a busy moment counts once at most. At one
request all three do the same: what they differ by there is noise. Prints a Markdown table:

    tokens/s    response tokens per second
    of off      by those of `off` in the same round; in brackets the quartiles
    equal       answers equal to those of `off`
"""

import argparse
import statistics
import time
from pathlib import Path

from random_model import add_model, random_model
from vllm import LLM, SamplingParams

from vllm_dllm.compare.answers import answer

CHOICES = ("off", "on", "auto")
PROMPT, RESPONSES = 64, (32, 64, 96, 128)
IDLE = 1.5  # seconds until vLLM's processes stop polling, so that the other engine has all cores


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model(parser)
    parser.add_argument("--policies", default="dual,entropy", help="with commas")
    parser.add_argument("--concurrency", default="1,16,64", help="requests in flight, with commas")
    parser.add_argument("--tokens", type=int, default=4, help="tokens a pass")
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def engine(folder: Path, choice: str, requests: int) -> LLM:
    return LLM(
        str(folder),
        dtype="float32",
        skip_tokenizer_init=True,
        max_model_len=256,
        max_num_seqs=requests,
        max_num_batched_tokens=max(256, requests * (PROMPT + max(RESPONSES))),
        kv_cache_memory_bytes=1 << 29,
        distributed_executor_backend="mp",  # on a CPU the one that comes back before a step is computed
        additional_config={"dllm_overlap": choice},
    )


def run(llm: LLM, policy: str, tokens: int, level: int) -> tuple[float, list[list[int]]]:
    """Response tokens per second with `level` requests in flight until all have been answered, and the answers."""
    params = [
        SamplingParams(
            temperature=0,
            max_tokens=RESPONSES[i % len(RESPONSES)],
            ignore_eos=True,
            detokenize=False,
            extra_args={"dllm_cache": policy, "dllm_tokens_per_step": tokens},
        )
        for i in range(max(8, 2 * level))
    ]
    prompts = [{"prompt_token_ids": [7 + i % 64] * PROMPT} for i in range(len(params))]
    found = answer(llm, list(zip(prompts, params, strict=True)), level)
    assert found is not None
    outputs, seconds = found
    answers = [list(output.outputs[0].token_ids) for output in outputs]
    return sum(map(len, answers)) / seconds, answers


def main() -> None:
    args = arguments()
    folder = random_model(args.random) if args.random else args.model
    levels = [int(level) for level in args.concurrency.split(",")]
    engines = {choice: engine(folder, choice, max(levels)) for choice in CHOICES}
    rates: dict[tuple[str, int, str], list[float]] = {}
    equal: dict[tuple[str, int, str], str] = {}
    for round_ in range(args.rounds + 1):  # the first warms up
        begin = round_ % len(CHOICES)
        for policy in args.policies.split(","):
            for level in levels:
                answers = {}
                for choice in CHOICES[begin:] + CHOICES[:begin]:
                    time.sleep(IDLE)
                    rate, answers[choice] = run(engines[choice], policy, args.tokens, level)
                    if round_:
                        rates.setdefault((policy, level, choice), []).append(rate)
                for choice, found in answers.items():
                    same = sum(a == b for a, b in zip(found, answers["off"], strict=True))
                    equal[policy, level, choice] = f"{same}/{len(found)}"
    print("| cache | concurrency | `dllm_overlap` | tokens/s | of off | equal |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for key in equal:
        policy, level, choice = key
        ratios = [own / off for own, off in zip(rates[key], rates[policy, level, "off"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(
            f"| `{policy}` | {level} | {choice} | {statistics.median(rates[key]):.0f} "
            f"| {middle:.2f} ({low:.2f} to {high:.2f}) | {equal[key]} |"
        )


if __name__ == "__main__":
    main()
