"""Passes of several requests, packed into the flat arrays of one step."""

from collections.abc import Sequence

import numpy as np

from vllm_dllm.messages import Batch, Guidance
from vllm_dllm.passes import Pass
from vllm_dllm.probes.base import Probe


def pack(requests: Sequence[Pass], pages: Sequence[Sequence[int]], wipe: Sequence[int] = ()) -> Batch:
    """The batch of the `requests`' passes; `pages` are each one's page numbers and then each second canvas's, `wipe`
    those to be zeroed first."""
    guided = [(i, p.second) for i, p in enumerate(requests) if p.second is not None]
    passes = [*requests, *(second for _, second in guided)]
    query_starts = np.zeros(len(passes) + 1, np.int32)
    read_starts = query_starts.copy()
    np.cumsum([len(p.queries) for p in passes], out=query_starts[1:])
    np.cumsum([len(p.reads) for p in passes], out=read_starts[1:])
    block_table = np.zeros((len(pages), max(map(len, pages))), np.int32)
    for line, table in zip(block_table, pages, strict=True):
        line[: len(table)] = table
    probes: dict[str, dict[int, Probe]] = {}
    for i, p in enumerate(passes):
        if p.probe is not None:
            probes.setdefault(p.probe.name, {})[i] = p.probe
    return Batch(
        positions=np.concatenate([p.queries for p in passes]),
        token_ids=np.concatenate([p.token_ids for p in passes]),
        query_starts=query_starts,
        ends=np.asarray([p.end for p in passes], np.int32),
        block_table=block_table,
        places=np.concatenate([p.places for p in passes]) + np.repeat(query_starts[:-1], np.diff(read_starts)),
        read_starts=read_starts,
        readouts=[p.readout for p in requests],
        probes=probes,
        edits={i: p.edits for i, p in enumerate(passes) if p.edits is not None},
        guidance={i: Guidance(len(requests) + n, second.scale) for n, (i, second) in enumerate(guided)},
        named={i: p.named for i, p in enumerate(requests) if p.named is not None},
        wipe=list(wipe),
    )
