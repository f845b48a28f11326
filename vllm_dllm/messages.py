"""What crosses between scheduler and worker in a step: flat arrays of NumPy, no engine, no device.

scheduler -- Batch: what to compute, what to read and how --> worker
scheduler <-- StepObservation: what was read and measured --- worker
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from vllm_dllm.probes.base import Probe

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Readout(NamedTuple):
    """What to read of a request's predictions, and how its tokens are chosen."""

    temperature: float = 0.0  # 0: the most likely token
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    seed: int = 0  # of this pass; read only with temperature > 0
    margin: bool = False
    entropy: bool = False
    confidence64: bool = False  # the confidence of a softmax in float64 too
    logprobs: int | None = None  # how many of the most likely tokens; -1: the whole vocabulary
    min_p: float = 0.0


class Adjustment(NamedTuple):
    """For some tokens, in every line: x / scale where x > 0 and x * scale elsewhere, and then + shift; in float32."""

    tokens: np.ndarray  # int32 [K], each once
    scale: np.ndarray | None  # float32 [K]; None: 1
    shift: np.ndarray  # float32 [K]


class Admitted(NamedTuple):
    """The tokens that a guaranteed format admits, by their class: all others are barred.

    `key` names the classes of all tokens (`Batch.tables`). Line `lines[j]` has the row `rows[which[j]]`.
    """

    key: str
    lines: np.ndarray  # [L] ascending
    which: np.ndarray  # int32 [L]
    rows: np.ndarray  # bool [rows, classes]


@dataclass
class Edits:
    """What is done to the logits of one pass before anything is read of them. Lines count the pass's own, from 0."""

    adjusted: list[Adjustment] = field(default_factory=list)  # in this order, before what is barred
    allowed: np.ndarray | None = None  # int32 tokens: all others -inf in every line; None: all
    banned: list[np.ndarray] = field(default_factory=list)  # int32 tokens: -inf in every line
    barred: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # lines and, as many, tokens: -inf
    admitted: Admitted | None = None

    def allow(self, tokens: np.ndarray) -> None:
        """Bar all but these, int32 and ascending, in every line."""
        self.allowed = tokens if self.allowed is None else np.intersect1d(self.allowed, tokens)

    def bar(self, lines: np.ndarray, tokens: np.ndarray) -> None:
        """Bar each of these tokens, int32, in each of these lines."""
        if len(lines) and len(tokens):
            self.barred.append((np.repeat(lines, len(tokens)), np.tile(tokens, len(lines))))

    def leaves(self, lines: int, vocab_size: int, mask_id: int) -> np.ndarray:
        """How many tokens each of the pass's `lines` may still have, the mask token aside: int [lines]."""
        whole = np.zeros(vocab_size, bool)
        whole[slice(None) if self.allowed is None else self.allowed] = True
        whole[mask_id] = False
        for tokens in self.banned:
            whole[tokens] = False
        left = np.full(lines, np.count_nonzero(whole))
        if self.barred:
            at, tokens = (np.concatenate(part).astype(np.int64) for part in zip(*self.barred, strict=True))
            pairs = np.unique(at[whole[tokens]] * vocab_size + tokens[whole[tokens]])
            left -= np.bincount(pairs // vocab_size, minlength=lines)
        return left


class Guidance(NamedTuple):
    """A request's second canvas (guidance.py)."""

    entry: int  # its place in the batch
    scale: float


class Placed(NamedTuple):
    """Query positions where an image stands: its embeddings go there in place of tokens'."""

    key: str  # of the image
    places: np.ndarray  # int32 [K] in the batch, ascending
    rows: np.ndarray  # int32 [K] of its embeddings


@dataclass
class Batch:
    """The passes of R requests: T query positions, of which N are read. All arrays int32.

    Second canvases are like requests of their own: they come last, in their requests' order, have no readout, and are
    read through the others' (`guidance`). To attention a batch is L lines, queries that see equally far: one for each
    request, or where attention is causal by blocks one for each block of its queries.

    request         0            |  1      |  2
    positions       0 1 2 .. 79  |  4 5 6  |  0 1 ..      T canvas positions to compute
    query_starts    0              80        83      T
    places          64 .. 79     |  81 82  |  ..          N places in the T
    read_starts     0              16        18      N
    """

    positions: np.ndarray  # [T]
    token_ids: np.ndarray  # [T]
    query_starts: np.ndarray  # [L + 1]
    ends: np.ndarray  # [L]: how far each line's queries see: all of their canvas that exists, or their block's end
    block_table: np.ndarray  # [L, most pages of a request]: page numbers, 0 where there are none
    places: np.ndarray  # [N]
    read_starts: np.ndarray  # [R + 1]
    readouts: list[Readout]  # [R], less the second canvases
    # by the probe's name, then by the request's place in the batch: what policies want measured in the attention
    probes: dict[str, dict[int, Probe]] = field(default_factory=dict)
    edits: dict[int, Edits] = field(default_factory=dict)  # by the request's place in the batch
    tables: dict[str, np.ndarray] = field(default_factory=dict)  # int32 [vocabulary]: classes of tokens that are new
    dropped: list[str] = field(default_factory=list)  # and those that are not needed any more
    guidance: dict[int, Guidance] = field(default_factory=dict)  # by the request's place in the batch, ascending
    # by the request's place in the batch: int32, for each of its lines the token that is read, whatever is most likely
    named: dict[int, np.ndarray] = field(default_factory=dict)
    wipe: list[int] = field(default_factory=list)  # pages to be zeroed first, for they hold what is no number
    placed: list[Placed] = field(default_factory=list)
    embed: dict[str, Any] = field(default_factory=dict)  # images that are new, by key: vLLM's items
    forget: list[str] = field(default_factory=list)  # keys of images whose embeddings are not needed any more

    def queries_of(self, i: int) -> np.ndarray:
        """The query positions of request `i`."""
        return self.positions[self.query_starts[i] : self.query_starts[i + 1]]

    def with_queries(self, positions: np.ndarray, query_starts: np.ndarray) -> "Batch":
        """The same requests, computing other positions. Token ids and places are the old ones."""
        return replace(self, positions=positions, query_starts=query_starts)


@dataclass(slots=True)
class Observation:
    """What one pass read for one request, one entry for each position that it predicted.

    `confidence` is the probability of the chosen token; `margin` the distance of the two largest
    probabilities; `entropy` is in nats; `confidence64` is the confidence of a softmax in float64. The last
    three are there if the pass was asked for them.
    `logprobs` has, per position, the ids and log probabilities of the chosen (or named) token and then the most
    likely ones, and that token's rank. `signals` are what the pass's probe measured, by name.
    """

    positions: np.ndarray  # canvas positions, ascending
    tokens: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray | None = None
    entropy: np.ndarray | None = None
    confidence64: np.ndarray | None = None
    logprobs: tuple[np.ndarray, np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    finite: bool = True  # False: for some position no token had a finite logit that was the largest
    signals: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    layer_tokens: list[int] | None = None  # positions computed in each layer, if the probe could widen the pass
    second: tuple[Mapping[str, Any], list[int] | None] = NOTHING, None  # with guidance: the second canvas's of the two
    score: str = "confidence"  # what the request ranks by
    vocab_size: int = 0


@dataclass
class StepObservation:
    """What a step's passes read: arrays of N entries, in the order of `Batch.places`.

    `margin`, `entropy` and `confidence64` hold values where the request's readout asked for them.
    `logprobs`, `signals` and `layer_tokens` have an entry for each request (by its place in the batch) that
    wants them.
    """

    tokens: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray | None = None
    entropy: np.ndarray | None = None
    confidence64: np.ndarray | None = None
    logprobs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict)
    broken: np.ndarray | None = None  # places among the N without a finite best token, if there are any
    vocab_size: int = 0
    signals: dict[int, dict[str, Any]] = field(default_factory=dict)
    layer_tokens: dict[int, list[int]] = field(default_factory=dict)

    def of_request(
        self, i: int, start: int, stop: int, positions: np.ndarray, second: int | None = None
    ) -> Observation:
        """The part of request `i`, whose entries are [start, stop) and predict canvas `positions`; `second` is its second
        canvas's place in the batch."""
        part = slice(start, stop)
        seen = Observation(
            positions,
            self.tokens[part],
            self.confidence[part],
            None if self.margin is None else self.margin[part],
            None if self.entropy is None else self.entropy[part],
            None if self.confidence64 is None else self.confidence64[part],
            self.logprobs.get(i),
            self.broken is None or not ((start <= self.broken) & (self.broken < stop)).any(),
            self.signals.get(i, NOTHING),
            self.layer_tokens.get(i),
            vocab_size=self.vocab_size,
        )
        if second is not None:
            seen.second = self.signals.get(second, NOTHING), self.layer_tokens.get(second)
        return seen
