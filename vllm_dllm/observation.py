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
    double: bool = False  # the confidence in float64 too
    logprobs: int | None = None  # how many of the most likely tokens; -1: the whole vocabulary


class Drift(NamedTuple):
    """Elastic-Cache's test, done inside the pass (arXiv:2510.14973)."""

    track: np.ndarray  # canvas positions, ascending, among the queries: whose attention is compared
    gamma: float  # below this similarity the rest of the pass computes the whole canvas
    track_num: int  # how many of each layer's most-attended positions are tracked next
    masked: np.ndarray  # bool, one for each canvas position: these are never tracked


@dataclass
class Observation:
    """What one pass read for one request, one entry for each response position read.

    `confidence` is the probability of the chosen token; `margin` the distance of the two largest
    probabilities; `entropy` is in nats; `confidence64` is the confidence of a softmax in float64. The last
    three are there if the pass was asked for them.
    `logprobs` has, per position, the ids and log probabilities of the chosen token and then the most
    likely ones, and the chosen token's rank. `tracked` (canvas positions) and `layer_tokens` (how many
    positions each layer computed) are there after a pass with a `Drift`, `importance` (the attention
    rollout's column sums, one for each canvas position) if the policy needs it.
    """

    positions: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray | None = None
    entropy: np.ndarray | None = None
    confidence64: np.ndarray | None = None
    logprobs: tuple[np.ndarray, np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    tracked: np.ndarray | None = None
    layer_tokens: list[int] | None = None
    importance: np.ndarray | None = None
    score: str = "confidence"  # what the request ranks by
    vocab_size: int = 0
