"""What it brings to have two sets of requests in flight by turns (`dllm_overlap`), in one run.

    python benchmarks/overlap.py --model checkpoints/tiny-llada
    python benchmarks/overlap.py --random 200M --concurrency 16 --policies dual

An engine for each of `off`, `on` and `auto`; they take turns, on the same requests, so many in flight at any time. A
number is the median over the rounds. Prints a Markdown table:

    tokens/s    response tokens per second
    of off      those of the same requests all together
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
    parser.add_argument("--rounds", type=int, default=3)
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
        for i in range(4 * level)
    ]
    prompts = [{"prompt_token_ids": [7 + i % 64] * PROMPT} for i in range(4 * level)]
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
        for policy in args.policies.split(","):
            for level in levels:
                answers = {}
                for choice, llm in engines.items():
                    time.sleep(IDLE)
                    rate, answers[choice] = run(llm, policy, args.tokens, level)
                    key = policy, level, choice
                    same = sum(a == b for a, b in zip(answers[choice], answers["off"], strict=True))
                    equal[key] = f"{same}/{len(answers['off'])}"
                    if round_:
                        rates.setdefault(key, []).append(rate)
    print("| cache | concurrency | `dllm_overlap` | tokens/s | of off | equal |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for (policy, level, choice), found in rates.items():
        rate, base = statistics.median(found), statistics.median(rates[policy, level, "off"])
        print(f"| `{policy}` | {level} | {choice} | {rate:.0f} | {rate / base:.2f} | {equal[policy, level, choice]} |")


if __name__ == "__main__":
    main()
