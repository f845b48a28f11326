"""How the authors' evaluations draw the masks of a target: a batch of `strata` at a time, spread over how much is masked.

Each draw has a weight: its estimate is weight * sum of log p over what is masked, and the likelihood's the mean over draws.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EPS = 1e-3  # Dream's: the least probability with which a position is masked


class Draws(NamedTuple):
    masks: np.ndarray  # bool [draws, target's length]
    weights: np.ndarray  # float64 [draws]


def by_counts(length: int, strata: int, rng: np.random.Generator) -> Draws:
    """LLaDA (`get_log_likelihood.py`): so many positions at random, the counts spread evenly from a drawn one on.

    A count among them weighs length / count.
    """
    first = int(rng.integers(1, length + 1))
    counts = np.round(np.linspace(first, first + (strata - 1) * length / strata, strata)).astype(np.int64)
    counts = (counts - 1) % length + 1
    order = rng.permuted(np.tile(np.arange(length), (strata, 1)), axis=1)
    return Draws(order < counts[:, None], length / counts)


def by_times(length: int, strata: int, rng: np.random.Generator) -> Draws:
    """Dream (`_eval_target_nll_mc` of its evaluation): each position with a probability, which is the weight's inverse.

    The probabilities are spread evenly over [EPS, 1) from a drawn one on. The last token of a sequence, for which that
    evaluation appends an end token, is never masked.
    """
    times = (rng.random() + np.arange(strata) / strata) % 1
    chance = (1 - EPS) * times + EPS
    masks = rng.random((strata, length)) < chance[:, None]
    masks[:, -1] = False
    return Draws(masks, 1 / chance)


DRAWS: dict[str, Callable[[int, int, np.random.Generator], Draws]] = {"counts": by_counts, "times": by_times}


def draw(kind: str, length: int, mc_num: int, strata: int, rng: np.random.Generator) -> Draws:
    """`mc_num` draws, a multiple of `strata`, one batch after the other."""
    batches = [DRAWS[kind](length, strata, rng) for _ in range(mc_num // strata)]
    return Draws(np.concatenate([b.masks for b in batches]), np.concatenate([b.weights for b in batches]))
