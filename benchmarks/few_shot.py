"""Multiple choice behind the same examples, scored by a model whose attention is causal by blocks.

    python benchmarks/few_shot.py
    python benchmarks/few_shot.py --layers 4 --documents 8

SDAR's layers with the random weights of blocks.py. Each document is `--examples` tokens that all of them begin with, a question
of its own and four answers, scored by the chain, all at once, with vLLM's prefix caching and without. Prints a Markdown table:

    computed    positions that passes computed, in thousands
    documents/s questions with all of their answers
    apart       the largest difference between a token's log probabilities
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from blocks import EOS, engine, write_model

from vllm_dllm import loglikelihood

QUESTION, ANSWER, CHOICES = 30, 5, 4  # tokens of each, and answers


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--examples", type=int, default=400, help="tokens that all documents begin with")
    parser.add_argument("--documents", type=int, default=16)
    return parser.parse_args()


def pairs(args: argparse.Namespace) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(0)

    def some(number: int) -> list[int]:
        return [rng.randrange(EOS) for _ in range(number)]

    examples = some(args.examples)
    questions = [[*examples, *some(QUESTION)] for _ in range(args.documents)]
    return [(question, some(ANSWER)) for question in questions for _ in range(CHOICES)]


def main() -> None:
    args = arguments()
    asked, found, rows = pairs(args), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(args.layers, folder)
        for caching in (True, False):
            trace = folder / f"trace-{caching}.jsonl"
            llm = engine(name, 16, caching, additional_config={"dllm_trace": str(trace)})
            loglikelihood(llm, [([7] * 40, [8] * 5)], use_tqdm=False)  # warms up
            begin, skipped = time.perf_counter(), len(trace.read_text().splitlines())
            found.append(loglikelihood(llm, asked, use_tqdm=False))
            seconds = time.perf_counter() - begin
            lines = trace.read_text().splitlines()[skipped:]
            rows.append((caching, sum(sum(json.loads(line)["query_tokens"]) for line in lines), seconds))
            llm.llm_engine.engine_core.shutdown()
    numbers = zip(*([x for one in likelihoods for x in one.token_logprobs] for likelihoods in found), strict=True)
    apart = max(abs(a - b) for a, b in numbers)
    print("| prefix caching | computed | documents/s | apart |\n| --- | ---: | ---: | ---: |")
    for caching, computed, seconds in rows:
        print(f"| {'on' if caching else 'off'} | {computed / 1e3:.1f} | {args.documents / seconds:.2f} | {apart:.0e} |")


if __name__ == "__main__":
    main()
