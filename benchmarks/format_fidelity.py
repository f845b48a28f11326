"""What a guaranteed format does to answers: the graded tasks with theirs and without.

    python benchmarks/format_fidelity.py [--prompts 400] [--checkpoints tiny-llada,tiny-dream]

A format here says what an answer looks like, and how many numbers or steps it has, as the question does; not what they
are. The table is docs/fidelity.md's.
"""

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

from fidelity import GEN_LENGTH, draw_prompts, start
from fidelity_sweeps import CHECKPOINTS

from vllm_dllm.compare.answers import Bench

SETTINGS = [{"dllm_threshold": 0.9}, {"dllm_threshold": 0.6}, {"dllm_threshold": 0.9, "dllm_cache": "dual"}]


def regex_of(turn: str, answer: str) -> str:
    """The format of a task's answer."""
    kind = turn.split()[0]
    if kind == "echo":
        return "[a-z]{3,24}"
    if kind == "calc":
        return f"([0-9]+[+-][0-9]+=[0-9]+;){{{answer.count(';')}}}#[0-9]+"
    return f"([0-9]{{1,3}} ){{{answer.count(' ')}}}[0-9]{{1,3}}"


def measure(
    bench: Bench, prompts: list[tuple[str, str]], settings: dict[str, Any], held: bool
) -> tuple[list[bool], float]:
    """Which answers are right, and passes of a request."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    def params(turn: str, answer: str) -> SamplingParams:
        wanted = StructuredOutputsParams(regex=regex_of(turn, answer)) if held else None
        extra = {"dllm_block_length": 32} | settings
        return SamplingParams(temperature=0, max_tokens=GEN_LENGTH, extra_args=extra, structured_outputs=wanted)

    run = bench.run([(bench.encode(turn), params(turn, answer)) for turn, answer in prompts])
    assert run is not None
    texts = [answer.text for answer in run.answers]
    if held:
        for text, (turn, answer) in zip(texts, prompts, strict=True):
            assert re.fullmatch(regex_of(turn, answer), text), text
    return [text == want for text, (_, want) in zip(texts, prompts, strict=True)], run.passes / len(prompts)


def rate_of(kind: str, right: list[bool], prompts: list[tuple[str, str]]) -> str:
    """Right answers to one kind of questions, in percent."""
    these = [r for r, (turn, _) in zip(right, prompts, strict=True) if turn.startswith(kind)]
    return f"{100 * sum(these) / len(these):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--checkpoints", default=",".join(CHECKPOINTS), help="with commas")
    args = parser.parse_args()
    prompts = draw_prompts(args.prompts, 11)
    kinds = list(dict.fromkeys(turn.split()[0] for turn, _ in prompts))
    print(
        f"| checkpoint | settings | right without | with its format | lost / won | {' | '.join(kinds)} | passes |",
        "| --- | --- | ---: | ---: | ---: |" + " ---: |" * (len(kinds) + 1),
        sep="\n",
    )
    for checkpoint in args.checkpoints.split(","):
        bench = start(checkpoint, 16, Path(tempfile.mkdtemp()) / "trace.jsonl")
        for settings in SETTINGS:
            runs = [measure(bench, prompts, settings, held) for held in (False, True)]
            (free, _), (held, _) = runs
            lost, won = (sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((free, held), (held, free)))
            by_kind = [" → ".join(rate_of(kind, right, prompts) for right, _ in runs) for kind in kinds]
            name = ", ".join(f"{key.removeprefix('dllm_')} {value}" for key, value in settings.items())
            rates = [f"{100 * sum(right) / len(prompts):.1f}" for right, _ in runs]
            passes = " → ".join(f"{p:.1f}" for _, p in runs)
            cells = [checkpoint, name, *rates, f"{lost} / {won}", *by_kind, passes]
            print(f"| {' | '.join(cells)} |", flush=True)
        bench.close()


if __name__ == "__main__":
    main()
