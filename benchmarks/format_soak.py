"""Thousands of guaranteed formats, drawn by hypothesis, and whether one answer is invalid.

    python benchmarks/format_soak.py [--requests 5000] [--model tiny-llada] [--random-weights] [--seed 0]

Regexes, choices and JSON schemas, every policy, thresholds down to 0.1, temperatures up to 2. Exits with 1 if an answer
is invalid.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "engine"), str(ROOT / "tests" / "golden")]
AT_ONCE = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--model", default="tiny-llada")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from common import Engine
    from format_cases import format_cases
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from test_formats import answers

    more = {"load_format": "dummy"} if args.random_weights else {}
    hidden = {"dllm_hidden_cache": True}
    trace = Path(tempfile.mkdtemp()) / "trace.jsonl"
    engine = Engine(args.model, trace, additional_config=hidden, max_num_seqs=50, **more)
    kinds: Counter[str] = Counter()
    policies: Counter[str] = Counter()
    faults: list[str] = []
    began = time.perf_counter()

    @seed(args.seed)
    @settings(
        max_examples=10**6,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(format_cases(args.model), min_size=AT_ONCE, max_size=AT_ONCE))
    def run(cases):
        if sum(kinds.values()) >= args.requests:
            raise StopIteration
        cases = [case for case in cases if case.possible]
        for case, text in zip(cases, answers(engine, cases), strict=True):
            kinds[next(iter(case.wanted))] += 1
            policies[case.settings["dllm_cache"]] += 1
            if fault := case.fault(text):
                faults.append(f"{case}: {fault}")
                print(faults[-1], flush=True)
        if sum(kinds.values()) % 250 < AT_ONCE:
            print(f"{sum(kinds.values())} answers, {len(faults)} invalid", flush=True)

    try:
        run()
    except StopIteration:
        pass
    engine.close()
    print(f"{sum(kinds.values())} answers in {time.perf_counter() - began:.0f} s, {len(faults)} invalid")
    print(dict(kinds), dict(policies))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
