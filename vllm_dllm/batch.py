"""One step's passes, as the flat arrays that the scheduler sends and the worker computes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vllm_dllm.decoding import Decoding
from vllm_dllm.observation import Drift, Observation, Readout


@dataclass
class Batch:
    """The passes of R requests: T query positions, N rows to read. All arrays int32.

    request         0            |  1      |  2
    positions       0 1 2 .. 79  |  4 5 6  |  0 1 ..      T canvas positions to compute
    query_starts    0              80        83      T
    rows            64 .. 79     |  81 82  |  ..          N places in the T
    row_starts      0              16        18      N
    """

    positions: np.ndarray  # [T]
    token_ids: np.ndarray  # [T]
    query_starts: np.ndarray  # [R + 1]
    canvas_lens: np.ndarray  # [R]
    block_table: np.ndarray  # [R, most pages of a request]: page numbers, 0 where there are none
    rows: np.ndarray  # [N]
    row_starts: np.ndarray  # [R + 1]
    readouts: list[Readout]  # [R]
    drift: dict[int, Drift] = field(default_factory=dict)  # by place in the batch: who wants the drift test
    rollout: list[int] = field(default_factory=list)  # places of those who want the attention rollout

    def with_queries(self, positions: np.ndarray, query_starts: np.ndarray) -> "Batch":
        """The same requests, computing other positions. Token ids and rows are the old ones."""
        return replace(self, positions=positions, query_starts=query_starts)


@dataclass
class Signals:
    """What a step's passes measured in the attention, by the request's place in the batch."""

    layer_tokens: dict[int, list[int]] = field(default_factory=dict)
    tracked: dict[int, np.ndarray] = field(default_factory=dict)  # canvas positions, ascending
    importance: dict[int, np.ndarray] = field(default_factory=dict)  # float32, one for each canvas position


@dataclass
class StepObservation:
    """What a step's passes read: arrays of N entries, in the order of `Batch.rows`.

    `margin`, `entropy` and `confidence64` hold values where the request's readout asked for them.
    `logprobs` has an entry for each request (by its place in the batch) that wants them.
    """

    tokens: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray | None
    entropy: np.ndarray | None
    logprobs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]
    confidence64: np.ndarray | None = None
    vocab_size: int = 0
    signals: Signals = field(default_factory=Signals)

    def of_request(self, i: int, start: int, stop: int, positions: np.ndarray) -> Observation:
        """The part of request `i`, whose rows are [start, stop) and predict response `positions`."""
        part = slice(start, stop)
        return Observation(
            positions=positions,
            tokens=self.tokens[part],
            confidence=self.confidence[part],
            margin=None if self.margin is None else self.margin[part],
            entropy=None if self.entropy is None else self.entropy[part],
            confidence64=None if self.confidence64 is None else self.confidence64[part],
            logprobs=self.logprobs.get(i),
            tracked=self.signals.tracked.get(i),
            layer_tokens=self.signals.layer_tokens.get(i),
            vocab_size=self.vocab_size,
            importance=self.signals.importance.get(i),
        )


def make_batch(requests: Sequence[Decoding], pages: Iterable[list[int]]) -> Batch:
    """The batch of the requests' next passes; `pages` are each request's page numbers."""
    queries, tokens, rows = [], [], []
    query_starts, row_starts = [0], [0]
    for request in requests:
        canvas, plan = request.canvas, request.next_pass()
        queries.append(plan.queries)
        tokens.append(canvas.tokens[plan.queries])
        at = plan.reads + (canvas.prompt_len + request.traits.row_shift)
        rows.append(query_starts[-1] + (at if plan.full else np.searchsorted(plan.queries, at)))
        query_starts.append(query_starts[-1] + len(plan.queries))
        row_starts.append(row_starts[-1] + len(at))
    tables = list(pages)
    block_table = np.zeros((len(tables), max(map(len, tables))), np.int32)
    for line, table in zip(block_table, tables, strict=True):
        line[: len(table)] = table
    return Batch(
        positions=np.concatenate(queries),
        token_ids=np.concatenate(tokens),
        query_starts=np.asarray(query_starts, np.int32),
        canvas_lens=np.asarray([r.canvas.length for r in requests], np.int32),
        block_table=block_table,
        rows=np.concatenate(rows).astype(np.int32),
        row_starts=np.asarray(row_starts, np.int32),
        readouts=[r.readout() for r in requests],
        drift={i: d for i, r in enumerate(requests) if (d := r.next_pass().drift) is not None},
        rollout=[i for i, r in enumerate(requests) if r.policy.needs_rollout],
    )
