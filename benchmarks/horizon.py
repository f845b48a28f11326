"""What a horizon and `max_tokens` do to answers and their cost, beside the whole canvas.

    python benchmarks/horizon.py --write     both checkpoints, a quarter of an hour; the tables of docs/canvas.md
    python benchmarks/horizon.py --prompts 80 --caches entropy --max-tokens 96,900 --horizons 32,none

Prompts, engine and grading are benchmarks/fidelity.py's: float32, greedy, blocks of 32, ending at the EOS.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from fidelity import ask, draw_prompts, start
from fidelity_report import MARKED
from fidelity_sweeps import CHECKPOINTS, ROOT

from vllm_dllm.compare.answers import machine

PAGE = ROOT / "docs" / "canvas.md"


def measure(checkpoint: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A run for each cache, `max_tokens` and horizon (None: the whole canvas)."""
    prompts, runs = draw_prompts(args.prompts, args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        bench = start(checkpoint, args.in_flight, Path(folder) / "trace.jsonl", max_model_len=1024)
        try:
            ask(bench, prompts[: args.in_flight], {"dllm_score": "confidence"}, 0)  # warms up
            for cache in args.caches:
                for length in args.max_tokens:
                    for horizon in args.horizons:
                        settings = {"dllm_cache": cache, "dllm_score": "confidence"}
                        settings |= {} if horizon is None else {"dllm_horizon": horizon}
                        times = [ask(bench, prompts, settings, 0, length) for _ in range(args.rounds)]
                        best = min(times, key=lambda found: found["seconds"])
                        right = int(best["right"], 16).bit_count() / len(prompts)
                        runs.append(best | {"cache": cache, "length": length, "horizon": horizon, "accuracy": right})
                        print(
                            f"{checkpoint} {cache} max_tokens={length} horizon={horizon}: {100 * right:.1f} % right, "
                            f"{best['computed']} positions, {best['passes']} passes, {best['seconds']:.1f} s",
                            flush=True,
                        )
        finally:
            bench.close()
    return runs


def table(runs: list[dict[str, Any]], prompts: int) -> str:
    """A line for each cache and horizon; a cell for each `max_tokens`: right, positions a prompt, prompts a second."""
    lengths = list(dict.fromkeys(run["length"] for run in runs))
    head = ["cache", "horizon", *(f"{length}" for length in lengths)]
    lines = [head, ["---", "---", *["---:"] * len(lengths)]]
    for cache, horizon in dict.fromkeys((run["cache"], run["horizon"]) for run in runs):
        cells = [
            f"{100 * run['accuracy']:.0f} % · {run['computed'] / prompts:.0f} · {prompts / run['seconds']:.1f}"
            for run in runs
            if (run["cache"], run["horizon"]) == (cache, horizon)
        ]
        lines.append([f"`{cache}`", "whole canvas" if horizon is None else str(horizon), *cells])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def numbers(text: str) -> list[int | None]:
    return [None if part == "none" else int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", default=",".join(CHECKPOINTS), help="with commas")
    parser.add_argument("--caches", default="none,entropy", help="with commas")
    parser.add_argument("--max-tokens", type=numbers, default="96,200,400,900", help="with commas")
    parser.add_argument("--horizons", type=numbers, default="none,0,32,64,128", help="with commas; none: no horizon")
    parser.add_argument("--prompts", type=int, default=80)
    parser.add_argument("--in-flight", type=int, default=16, help="requests at once")
    parser.add_argument("--seed", type=int, default=11, help="of the prompts")
    parser.add_argument("--rounds", type=int, default=1, help="the fastest of so many runs counts")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/canvas.md")
    args = parser.parse_args()
    args.caches = args.caches.split(",")
    tables = {
        "about-horizon": f"{args.prompts} prompts, {args.in_flight} requests at once, {machine()}, "
        f"{'one run' if args.rounds == 1 else f'the fastest of {args.rounds} runs'} of each cell.\n"
    }
    for checkpoint in args.checkpoints.split(","):
        tables[f"horizon-{checkpoint}"] = table(measure(checkpoint, args), args.prompts)
        print(tables[f"horizon-{checkpoint}"])
    if args.write:
        PAGE.write_text(renewed(PAGE.read_text(), tables))


def renewed(text: str, tables: dict[str, str]) -> str:
    """`text` with `tables` between their marks."""
    return MARKED.sub(lambda match: f"{match[1]}{tables[match[2]]}{match[3]}" if match[2] in tables else match[0], text)


if __name__ == "__main__":
    main()
