"""What a pass is asked to read and what it gives back: small arrays, no engine, no device."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Readout(NamedTuple):
    """What to read at a request's rows, and how its tokens are chosen there."""

    temperature: float = 0.0  # 0: the most likely token
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    seed: int = 0  # of this pass; read only with temperature > 0
    margin: bool = False
    entropy: bool = False
    logprobs: int | None = None  # how many of the most likely tokens; -1: the whole vocabulary


@dataclass
class Observation:
    """What one pass read for one request, one entry for each response position read.

    `confidence` is the probability of the chosen token; `margin` the distance of the two largest
    probabilities; `entropy` is in nats. The last two are there if the pass was asked for them.
    `logprobs` has, per position, the ids and log probabilities of the chosen token and then the most
    likely ones, and the chosen token's rank.
    """

    positions: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray | None = None
    entropy: np.ndarray | None = None
    logprobs: tuple[np.ndarray, np.ndarray, np.ndarray] | None = field(default=None, repr=False)
