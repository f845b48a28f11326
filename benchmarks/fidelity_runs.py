"""The numbers that benchmarks/fidelity.py measures, and the file that keeps them.

A run is one setting on one set of prompts:

    right       which responses were right: a bit for each prompt, the first prompt's the highest, in hexadecimal
    computed    positions computed, over all passes of all requests (elastic: a mean over the layers)
    passes      of all requests
    answered    response tokens returned, EOS included
    seconds     from the first request's start to the last one's end
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any


def pack(right: Iterable[bool]) -> str:
    bits = "".join("1" if r else "0" for r in right)
    return f"{int(bits, 2):0{-(-len(bits) // 4)}x}"


@dataclass
class Compared:
    """A run beside its baseline's, on the same prompts."""

    accuracy: float  # share of right responses
    lost: int  # prompts that the baseline has right and this has wrong
    won: int  # the other way round
    prompts: int
    share: float  # positions computed, of the baseline's
    passes: float  # for each request
    rate: float  # response tokens a second
    speed: float  # the baseline's time over this one's, for the same prompts

    @property
    def points(self) -> float:
        """Accuracy gained over the baseline's, in points (negative: lost)."""
        return 100 * (self.won - self.lost) / self.prompts

    @property
    def error(self) -> float:
        """The standard error of `points`: of a mean of paired differences, each -1, 0 or 1."""
        variance = (self.won + self.lost) / self.prompts - (self.points / 100) ** 2
        return 100 * sqrt(variance / self.prompts)


class Runs:
    """All runs, and what they were measured with (`about`)."""

    def __init__(self, file: Path, about: dict[str, Any]):
        self.file, self.about = file, about
        self.found: dict[str, dict[str, Any]] = {}

    @classmethod
    def read(cls, file: Path) -> "Runs":
        content = json.loads(file.read_text())
        runs = cls(file, content["about"])
        for run in content["runs"]:
            runs.found[_key(run["checkpoint"], run["seed"], run["settings"])] = run
        return runs

    def write(self) -> None:
        """A run is a line."""
        lines = ",\n".join(json.dumps(run) for run in self.found.values())
        text = f'{{"about": {json.dumps(self.about)},\n"runs": [\n{lines}\n]}}\n'
        part = self.file.with_suffix(".part")  # so that a run that is interrupted leaves the file whole
        part.write_text(text)
        part.replace(self.file)

    def has(self, checkpoint: str, seed: int, settings: dict[str, Any]) -> bool:
        return _key(checkpoint, seed, settings) in self.found

    def add(self, checkpoint: str, seed: int, settings: dict[str, Any], run: dict[str, Any], fastest: bool) -> None:
        """In place of an earlier run of the same; with `fastest`, only if it took less time."""
        key = _key(checkpoint, seed, settings)
        if fastest and self.found[key]["seconds"] <= run["seconds"]:
            return
        self.found[key] = {"checkpoint": checkpoint, "seed": seed, "settings": settings} | run

    def get(self, checkpoint: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
        """Raises KeyError, and says what to do, for what was not measured."""
        try:
            return self.found[_key(checkpoint, seed, settings)]
        except KeyError:
            raise KeyError(
                f"{self.file} has no run of {settings} for {checkpoint}, seed {seed}; "
                "run `python benchmarks/fidelity.py --resume`"
            ) from None

    def compare(self, checkpoint: str, seed: int, settings: dict[str, Any], baseline: dict[str, Any]) -> Compared:
        run, base = self.get(checkpoint, seed, settings), self.get(checkpoint, seed, baseline)
        right, was = int(run["right"], 16), int(base["right"], 16)
        number = self.about["prompts"]
        return Compared(
            accuracy=right.bit_count() / number,
            lost=(was & ~right).bit_count(),
            won=(right & ~was).bit_count(),
            prompts=number,
            share=run["computed"] / base["computed"],
            passes=run["passes"] / number,
            rate=run["answered"] / run["seconds"],
            speed=base["seconds"] / run["seconds"],
        )


def _key(checkpoint: str, seed: int, settings: dict[str, Any]) -> str:
    return json.dumps([checkpoint, seed, settings], sort_keys=True)
