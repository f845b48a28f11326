"""Passes of several requests, packed into the flat arrays of one step."""

from collections.abc import Sequence

import numpy as np

from vllm_dllm.messages import Batch, Guidance
from vllm_dllm.passes import Pass
from vllm_dllm.probes.base import Probe


def pack(requests: Sequence[Pass], pages: Sequence[Sequence[int] | np.ndarray], wipe: Sequence[int] = ()) -> Batch:
    """The batch of the `requests`' passes; `pages` are each one's page numbers and then each second canvas's, `wipe`
    those to be zeroed first."""
    guided = [(i, p.second) for i, p in enumerate(requests) if p.second is not None]
    passes = [*requests, *(second for _, second in guided)]
    computed, read = [p.queries for p in passes], [p.rows for p in passes]
    positions, query_starts = np.concatenate(computed), _starts(computed)
    rows, read_starts = np.concatenate(read), _starts(read)
    ends = np.asarray([p.end for p in passes], np.int32)
    first = np.arange(len(passes)) * max(ends)  # every row of every canvas has a number of its own
    queries = positions + first.repeat(np.diff(query_starts))
    places = queries.searchsorted(rows + first.repeat(np.diff(read_starts)))
    block_table = np.zeros((len(pages), max(map(len, pages))), np.int32)
    for line, table in zip(block_table, pages, strict=True):
        line[: len(table)] = table
    if any(p.block is not None for p in passes):
        query_starts, ends, of = _lines(passes, query_starts)
        block_table = block_table[of]
    probes: dict[str, dict[int, Probe]] = {}
    for i, p in enumerate(passes):
        if p.probe is not None:
            probes.setdefault(p.probe.name, {})[i] = p.probe
    return Batch(
        positions=positions.astype(np.int32),
        token_ids=np.concatenate([p.token_ids for p in passes]),
        query_starts=query_starts,
        ends=ends,
        block_table=block_table,
        places=places.astype(np.int32),
        read_starts=read_starts,
        readouts=[p.readout for p in requests],
        probes=probes,
        edits={i: p.edits for i, p in enumerate(passes) if p.edits is not None},
        guidance={i: Guidance(len(requests) + n, second.scale) for n, (i, second) in enumerate(guided)},
        named={i: p.named for i, p in enumerate(requests) if p.named is not None},
        wipe=list(wipe),
    )


def _lines(passes: Sequence[Pass], starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each line begins (and the last one ends), how far its queries see, and which pass it is of; int32.

    Where attention is causal by blocks, the queries of a block are a line of their own, which sees no further than the
    block does. Every layer writes all keys before it attends, so the lines of a pass may stand side by side.
    """
    begins, ends, of = [], [], []
    for i, p in enumerate(passes):
        if p.block is None:
            cuts, blocks = np.zeros(1, np.int64), np.asarray([p.end])
        else:
            stops = (p.queries // p.block + 1) * p.block
            cuts = np.flatnonzero(np.diff(stops, prepend=-1))
            blocks = np.minimum(stops[cuts], p.end)
        begins.append(cuts + starts[i])
        ends.append(blocks)
        of.append(np.full(len(cuts), i))
    return (
        np.concatenate([*begins, starts[-1:]]).astype(np.int32),
        np.concatenate(ends).astype(np.int32),
        np.concatenate(of).astype(np.int32),
    )


def _starts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """int32: where each of the parts begins, and where the last one ends."""
    starts = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    return starts
