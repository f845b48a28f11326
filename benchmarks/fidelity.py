"""What each caching policy costs in accuracy and saves in time, on graded prompts, over a sweep of its knobs.

    python benchmarks/fidelity.py                      everything: docs/fidelity.json, .md and pictures (see below)
    python benchmarks/fidelity.py --policies entropy   these policies anew, the others as they are in the file
    python benchmarks/fidelity.py --main               the curves alone: each policy's main setting
    python benchmarks/fidelity.py --resume             what the file lacks
    python benchmarks/fidelity.py --draw               no measurement: tables and picture from the file

One engine for each bundled checkpoint, float32, greedy. The prompts are drawn by checkpoints/tasks.py, as many of each
kind, and a response is right if it is, up to its EOS, the one right answer. A second set of prompts is
for the policies' defaults alone. Beside the numbers (--json FILE) go FILE's tables (.md: between its marks, if it
has any) and pictures (-MODEL.svg, need `pip install .[compare]`).
"""

import argparse
import random
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from fidelity_report import write_report
from fidelity_runs import Runs, pack
from fidelity_sweeps import CHECKPOINTS, ROOT, SWEEPS, Sweep, explicit, sweeps

from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.compare.answers import Bench, machine

sys.path.append(str(ROOT / "checkpoints"))
import tasks  # noqa: E402

GEN_LENGTH = 96


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", default=",".join(CHECKPOINTS), help="with commas")
    parser.add_argument("--policies", default="", help="caching policies, with commas; all if not given")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--in-flight", type=int, default=16, help="requests at once")
    parser.add_argument("--seed", type=int, default=11, help="of the prompts; the second set has the next one")
    parser.add_argument("--rounds", type=int, default=1, help="the fastest of so many runs counts")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "fidelity.json", help="the numbers")
    parser.add_argument("--main", action="store_true", help="sweep the policies' main settings only")
    parser.add_argument("--resume", action="store_true", help="measure only what the file lacks")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    args = parser.parse_args()
    args.checkpoints = args.checkpoints.split(",")
    args.policies = args.policies.split(",") if args.policies else [s.cache for s in SWEEPS]
    for given, known in ((args.checkpoints, set(CHECKPOINTS)), (args.policies, {s.cache for s in SWEEPS})):
        if unknown := set(given) - known:
            parser.error(f"{', '.join(unknown)} is not among {', '.join(sorted(known))}")
    return args


def draw_prompts(number: int, seed: int) -> list[tuple[str, str]]:
    """User turns and their right answers, the kinds taking turns. The same ones for the same arguments."""
    rng = random.Random(seed)
    return [tasks.sample(rng, kind) for kind in islice(cycle(tasks.TASKS), number)]


def start(checkpoint: str, in_flight: int, trace: Path, max_model_len: int = 256) -> Bench:
    """An engine with one checkpoint."""
    hidden = any(POLICIES[s.cache].needs_hidden() for s in sweeps(checkpoint))
    return Bench(
        trace,
        {"dllm_hidden_cache": True} if hidden else {},
        model=str(ROOT / "checkpoints" / checkpoint),
        dtype="float32",
        max_model_len=max_model_len,
        max_num_seqs=in_flight,
        max_num_batched_tokens=max_model_len * in_flight,  # a full pass of every request fits into a step
        kv_cache_memory_bytes=1 << 28,
    )


def ask(
    bench: Bench, prompts: list[tuple[str, str]], settings: dict[str, Any], seed: int, max_tokens: int = GEN_LENGTH
) -> dict[str, Any]:
    """One run's numbers (fidelity_runs.py says which)."""
    from vllm import SamplingParams

    rng = random.Random(seed)

    def params() -> SamplingParams:
        own = dict(settings)
        if own["dllm_score"] == "random":  # one order for each prompt, whatever the policy
            own["dllm_scores"] = [rng.random() for _ in range(max_tokens)]
        return SamplingParams(temperature=0, max_tokens=max_tokens, extra_args=own)

    found = bench.run([(bench.encode(turn), params()) for turn, _ in prompts])
    assert found is not None
    return {
        "right": pack(a.text == want for a, (_, want) in zip(found.answers, prompts, strict=True)),
        "computed": found.computed,
        "passes": found.passes,
        "answered": found.tokens,
        "seconds": found.seconds,
    }


def due(args: argparse.Namespace, checkpoint: str) -> list[tuple[int, dict[str, Any]]]:
    """What is to be measured, each once: the seed of the prompts and the settings, written out."""
    found: list[tuple[int, dict[str, Any]]] = []

    def add(seed: int, settings: dict[str, Any]) -> None:
        full = explicit(settings, checkpoint)
        if full is not None and (seed, full) not in found:
            found.append((seed, full))

    chosen: list[Sweep] = [s for s in sweeps(checkpoint) if s.cache in args.policies and (s.main or not args.main)]
    for sweep in chosen:
        for value in sweep.values:
            add(args.seed, sweep.baseline_at(value))
            add(args.seed, sweep.at(value))
        add(args.seed + 1, sweep.baseline)
        add(args.seed + 1, sweep.at(sweep.default))
    return found


def measure(args: argparse.Namespace, runs: Runs, checkpoint: str) -> None:
    """Measure what is due, and write the file after each run."""
    work = [w for w in due(args, checkpoint) if not (args.resume and runs.has(checkpoint, *w))]
    if not work:
        return
    with tempfile.TemporaryDirectory() as folder:
        bench = start(checkpoint, args.in_flight, Path(folder) / "trace.jsonl")
        try:
            sets = {seed: draw_prompts(args.prompts, seed) for seed in (args.seed, args.seed + 1)}
            # warms up: on CPU every number of rows that is new costs the making of a kernel
            ask(bench, sets[args.seed], work[0][1], args.seed)
            for round_ in range(args.rounds):
                for number, (seed, settings) in enumerate(work, 1):
                    measured = ask(bench, sets[seed], settings, seed)
                    runs.add(checkpoint, seed, settings, measured, fastest=round_ > 0)
                    runs.write()
                    right = int(measured["right"], 16).bit_count()
                    shown = " ".join(f"{k.removeprefix('dllm_')}={v}" for k, v in settings.items())
                    print(
                        f"{checkpoint} {number}/{len(work)}: {right} right, {measured['passes']} passes, "
                        f"{measured['computed']} tokens computed, {measured['seconds']:.1f} s: {shown}, seed {seed}",
                        flush=True,
                    )
        finally:
            bench.close()


def main() -> None:
    args = arguments()
    prompts = {"prompts": args.prompts, "in_flight": args.in_flight, "seed": args.seed, "rounds": args.rounds}
    everything = set(args.policies) == {s.cache for s in SWEEPS} and set(args.checkpoints) == set(CHECKPOINTS)
    keep = args.draw or args.resume or not everything
    runs = Runs.read(args.json) if keep and args.json.exists() else Runs(args.json, prompts)
    if not args.draw:
        if runs.about | {"rounds": 0} != runs.about | prompts | {"rounds": 0}:
            sys.exit(f"error: {args.json} was measured with {runs.about}; give the same, or another --json")
        runs.about |= prompts | {"machine": machine()}
        for checkpoint in args.checkpoints:
            measure(args, runs, checkpoint)
    write_report(runs)


if __name__ == "__main__":
    main()
