"""An offline batch job: prompts in, a JSON line for each answer out.

    python examples/offline_batch.py --tasks 32
    python examples/offline_batch.py --prompts questions.txt --output answers.jsonl
    python examples/offline_batch.py --model GSAI-ML/LLaDA-8B-Instruct --prompts questions.jsonl --max-tokens 128

A text file has one prompt a line; a .jsonl file has an object with `prompt`, and `want` if there is one
right answer. `--tasks N` takes N of the bundled checkpoints' own tasks. Answers that have a `want` are graded.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vllm import LLM

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Objects with `prompt` and perhaps `want`."""
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    return [json.loads(line) for line in lines] if path.suffix == ".jsonl" else [{"prompt": line} for line in lines]


def bundled_tasks(count: int, seed: int) -> list[dict[str, Any]]:
    """Tasks that the bundled checkpoints were trained on, each with its right answer."""
    sys.path.append(str(CHECKPOINTS))
    import tasks

    rng = random.Random(seed)
    return [dict(zip(("prompt", "want"), tasks.sample(rng), strict=True)) for _ in range(count)]


def run(model: str, items: list[dict[str, Any]], settings: dict[str, Any], max_tokens: int) -> Iterator[dict[str, Any]]:
    """The items in their order, each with its answer."""
    llm = LLM(model, additional_config=settings)
    params = llm.get_default_sampling_params()  # greedy; a bare SamplingParams() has temperature 1
    params.max_tokens = max_tokens
    conversations = [[{"role": "user", "content": item["prompt"]}] for item in items]
    # all at once: the engine runs as many as fit, and starts the next as soon as one ends
    for item, request in zip(items, llm.chat(conversations, params), strict=True):
        answer = request.outputs[0]
        line = item | {"answer": answer.text, "tokens": len(answer.token_ids), "finish_reason": answer.finish_reason}
        if "want" in item:
            line["right"] = answer.text == item["want"]
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompts", type=Path, metavar="FILE", help="a text or .jsonl file")
    source.add_argument("--tasks", type=int, metavar="N", help="so many of the bundled tasks")
    parser.add_argument("--seed", type=int, default=0, help="which of the bundled tasks")
    parser.add_argument("--model", default=str(CHECKPOINTS / "tiny-llada"))
    parser.add_argument("--max-tokens", type=int, default=96, help="length of every response's canvas")
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="any dllm_* settings")
    parser.add_argument("--output", type=Path, default=Path("answers.jsonl"))
    args = parser.parse_args()

    items = read_prompts(args.prompts) if args.prompts else bundled_tasks(args.tasks, args.seed)
    with args.output.open("w") as output:
        lines = []
        for line in run(args.model, items, args.settings, args.max_tokens):
            output.write(json.dumps(line) + "\n")
            lines.append(line)
    print(f"{len(lines)} answers in {args.output}")
    graded = [line["right"] for line in lines if "right" in line]
    if graded:
        print(f"{sum(graded)} of {len(graded)} right")


if __name__ == "__main__":  # vLLM starts processes that import this file again
    # vLLM's CPU build takes half of the memory for its KV cache unless told a number of GiB
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    main()
