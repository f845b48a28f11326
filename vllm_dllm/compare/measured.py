"""What `vllm-dllm compare` has measured, and the file that keeps it: interrupted, it goes on from there.

Prompts are taken in rounds, each twice as large as the last one: a round is done by every variant before the next one
begins, so that whenever it ends all have answered the same prompts, or all but one round of them.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vllm_dllm.compare.answers import Answer, Run
from vllm_dllm.compare.variants import Variant

Round = tuple[int, int]  # the first prompt's number and the first one's that is not in it


class Measured:
    """Every variant's runs, by round. The file: a line that says what was measured with (`about`), a line for each run."""

    def __init__(self, file: Path, about: dict[str, Any]):
        """Reads the file where there is one. Raises ValueError if that was measured with something else."""
        self.file = file
        self.runs: dict[str, dict[Round, Run]] = {}
        if not file.exists():
            file.write_text(json.dumps(about) + "\n")
            return
        first, *lines = file.read_text().splitlines(keepends=True)
        if (was := json.loads(first)) != about:
            differs = [key for key in (was | about) if was.get(key) != about.get(key)]
            raise ValueError(
                f"{file} was measured with "
                + ", ".join(f"{key} {was.get(key)!r} and not {about.get(key)!r}" for key in differs)
                + ": name another --output, or remove it"
            )
        for line in lines:
            if line.endswith("\n"):  # the last one may be cut
                self._put(json.loads(line))
        self._rewrite(about)

    def _rewrite(self, about: dict[str, Any]) -> None:
        """Without a line that was cut."""
        lines = [_line(name, r, run) for name, runs in self.runs.items() for r, run in runs.items()]
        part = self.file.with_suffix(".part")
        part.write_text("".join((json.dumps(about) + "\n", *lines)))
        part.replace(self.file)

    def _put(self, line: dict[str, Any]) -> None:
        answers = [Answer(**answer) for answer in line["answers"]]
        self.runs.setdefault(line["settings"], {})[tuple(line["round"])] = Run(answers, line["seconds"])

    def add(self, variant: Variant, round_: Round, run: Run) -> None:
        self.runs.setdefault(key(variant), {})[round_] = run
        with self.file.open("a") as file:
            file.write(_line(key(variant), round_, run))

    def of(self, variant: Variant) -> dict[Round, Run]:
        return self.runs.get(key(variant), {})

    def rounds(self, variants: Iterable[Variant]) -> list[Round]:
        """Those that one of the variants has done."""
        return sorted({r for variant in variants for r in self.of(variant)})

    def seconds_a_prompt(self, variant: Variant) -> float:
        """By its last round, the largest."""
        runs = self.of(variant)
        last = max(runs)
        return runs[last].seconds / (last[1] - last[0])


def key(variant: Variant) -> str:
    return json.dumps(variant.settings, sort_keys=True)


def _line(settings: str, round_: Round, run: Run) -> str:
    answers = [asdict(answer) for answer in run.answers]
    return json.dumps({"settings": settings, "round": round_, "seconds": run.seconds, "answers": answers}) + "\n"


def plan(
    measured: Measured, variants: list[Variant], prompts: int, in_flight: int, seconds_left: Iterator[float]
) -> Iterator[tuple[Round, Variant]]:
    """What is to be measured next, until all is or the time is over; each is added to `measured` before the next.

    `seconds_left` says, whenever it is asked, how long there is (infinity: as long as it takes). A round that would take
    longer is cut, to no fewer prompts than there are `in_flight`.
    """
    for round_ in measured.rounds(variants):
        yield from ((round_, variant) for variant in variants if round_ not in measured.of(variant))
    begin, size = max((stop for _, stop in measured.rounds(variants)), default=0), in_flight
    while begin < prompts:
        size = max(size, 2 * begin)
        stop = min(begin + size, prompts)
        if prompts - stop < size // 2:
            stop = prompts  # no small rest
        if begin:
            pace = sum(measured.seconds_a_prompt(variant) for variant in variants)
            stop = min(stop, begin + int(min(next(seconds_left) / pace, prompts)))
            if stop < min(begin + in_flight, prompts):
                return
        for variant in variants:
            yield (begin, stop), variant
        begin = stop
