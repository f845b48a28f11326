"""Which cases of the golden files a run takes: some of each kind, others after each commit; or all of them."""

import random
import subprocess
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from common import ROOT

SEEDS = 10_000


def seed_of_commit() -> int:
    """A number that changes with the commit that is checked out; 0 where git cannot say which."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return 0
    return int(found.stdout, 16) % SEEDS if found.returncode == 0 else 0


@dataclass(frozen=True)
class Sampling:
    """`pytest --golden-seed SEED`, or `--golden all`."""

    seed: int
    everything: bool = False

    def __str__(self) -> str:
        return "--golden all" if self.everything else f"--golden-seed {self.seed}"

    def take(self, items: Sequence[Any], kind: Callable[[Any], Hashable], share: float = 0, least: int = 1) -> list:
        """A share of the items of each kind, and no fewer of each than `least`."""
        if self.everything:
            return list(items)
        rng, groups = random.Random(self.seed), {}
        for item in items:
            groups.setdefault(kind(item), []).append(item)
        counts = [(group, min(len(group), max(least, round(len(group) * share)))) for group in groups.values()]
        return [item for group, count in counts for item in rng.sample(group, count)]

    def check(self, found: Sequence[str | None]) -> None:
        """Fail if a case differs: `found` has a sentence for each that does, and None for the others."""
        wrong = [difference for difference in found if difference is not None]
        again = f"the same cases again: pytest {self}"
        assert not wrong, "\n".join((f"{len(wrong)} of {len(found)} cases differ ({again}):", *wrong[:20]))
