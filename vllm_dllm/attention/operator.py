"""xformers' split-k attention over pages: not causal, any number of queries for each request.

Its kernel shares a request's keys out among several programs, which few queries over many keys need to fill a GPU, and
adds up what they found.
"""

import functools

import torch
from xformers.ops.fmha.attn_bias import PagedBlockDiagonalPaddedKeysMask, _PaddedSeqLenInfo, _SeqLenInfo
from xformers.ops.fmha.common import Inputs
from xformers.ops.fmha.triton_splitk import FwOp


@functools.cache
def operator(page_size: int) -> type[FwOp]:
    """xformers' operator with as many keys at a time as a page allows: a tile must not cross pages."""

    class SplitK(FwOp):
        BLOCK_N = 64 if page_size % 64 == 0 else 32 if page_size % 32 == 0 else 16

        @classmethod
        def get_extra_args(cls, **arguments):
            if torch.cuda.is_available():
                return super().get_extra_args(**arguments)
            # in the interpreter: xformers would ask for the GPU's kind
            tiles = {"BLOCK_M": cls.BLOCK_M, "BLOCK_N": cls.BLOCK_N}
            return tiles | {"num_warps": cls.NUM_WARPS, "num_stages": cls.NUM_STAGES}

    return SplitK


def mask(
    starts: torch.Tensor, lengths: torch.Tensor, table: torch.Tensor, page_size: int, longest_query: int
) -> PagedBlockDiagonalPaddedKeysMask:
    """Who attends to what: request i's queries, from `starts[i]` to `starts[i + 1]`, to `lengths[i]` keys in the pages
    `table[i]`. All int32, on the device; only the shapes and `longest_query` are read on the host.

    xformers' own constructors want lists of lengths, which the kernels do not read.
    """
    # with one query each, xformers would want as many queries as there are requests, and there may be padding
    queries = _SeqLenInfo(seqstart=starts, max_seqlen=max(longest_query, 2), min_seqlen=0, seqstart_py=[0])
    room = table.shape[1] * page_size
    keys = _PaddedSeqLenInfo(
        seqstart=starts, max_seqlen=room, min_seqlen=0, seqstart_py=[0], seqlen=lengths, seqlen_py=[], padding=room
    )
    return PagedBlockDiagonalPaddedKeysMask(q_seqinfo=queries, k_seqinfo=keys, block_tables=table, page_size=page_size)


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    of: PagedBlockDiagonalPaddedKeysMask,
    scale: float,
) -> torch.Tensor:
    """[T, heads, head size]: softmax(queries keys^T scale) values. What stands behind the last request is no number.

    `queries` [T, heads, head size]; `keys` and `values` [pages, page size, kv heads, head size] are views of the cache.
    """
    number, heads, size = queries.shape
    pages, page_size, kv_heads, _ = keys.shape
    group = heads // kv_heads
    shape = (1, pages * page_size, kv_heads, group, size)
    given = Inputs(
        query=queries.view(1, number, kv_heads, group, size),
        key=keys.flatten(0, 1)[None, :, :, None].expand(shape),
        value=values.flatten(0, 1)[None, :, :, None].expand(shape),
        attn_bias=of,
        scale=scale,
    )
    found, _ = operator(page_size).apply(given, needs_gradient=False)
    return found.view(number, heads, size)
