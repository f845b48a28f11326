"""The documents of the harness's tasks beside this file: questions that the bundled checkpoints know.

The harness imports this file on its own (`!function` in the YAML), so it finds checkpoints/tasks.py itself.
"""

import random
import sys
from pathlib import Path

from datasets import Dataset

sys.path.append(str(Path(__file__).parents[2] / "checkpoints"))

import tasks  # noqa: E402

COUNT = 4
WRONG = 2  # wrong answers to each question of the multiple choice


def _questions(kind: str, seed: int) -> list[dict]:
    rng = random.Random(seed)
    return [dict(zip(("question", "answer"), tasks.sample(rng, kind), strict=True)) for _ in range(COUNT)]


def _changed(answer: str, rng: random.Random) -> str:
    """The answer with one digit replaced by another."""
    at = rng.choice([i for i, c in enumerate(answer) if c.isdigit()])
    return answer[:at] + rng.choice([d for d in "0123456789" if d != answer[at]]) + answer[at + 1 :]


def _splits(documents: list[dict], shots: list[dict]) -> dict[str, Dataset]:
    return {"test": Dataset.from_list(documents), "validation": Dataset.from_list(shots)}


def echo(**_) -> dict[str, Dataset]:
    return _splits(_questions("echo", 1), _questions("echo", 2))


def count(**_) -> dict[str, Dataset]:
    return _splits(_questions("count", 3), _questions("count", 4))


def choices(**_) -> dict[str, Dataset]:
    """Each right answer among wrong ones, of which a digit is changed."""
    rng = random.Random(5)
    documents = []
    for document in _questions("count", 6):
        options = {document["answer"]}
        while len(options) <= WRONG:
            options.add(_changed(document["answer"], rng))
        documents.append(document | {"options": sorted(options)})
    return _splits(documents, documents)
