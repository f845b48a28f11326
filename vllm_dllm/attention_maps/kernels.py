"""Attention over paged keys in Triton. The same functions as in reference.py, which says what they compute.

Two sweeps over q k^T, neither of which keeps it: one for the log-sum-exp of every row and head, one that
computes a tile of q k^T again and turns it into probabilities. In the second a program owns a tile of keys
and goes through all rows, so sums have one order and need no atomics. A launch covers all requests.
"""

import torch
import triton
import triton.language as tl

from vllm_dllm.attention_maps.query_set import QuerySet

ROWS = (16, 32, 64)  # queries of a tile: each number is a kernel of its own, and so is each dtype

DOT = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}  # what tiles are multiplied in


@triton.jit
def _load_queries(queries, row, stop, head, row_stride, head_stride, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """[rows, WIDTH]; zeros from `stop` on, and beyond the head size."""
    dim = tl.arange(0, WIDTH)
    at = row.to(tl.int64)[:, None] * row_stride + head * head_stride + dim[None, :]
    return tl.load(queries + at, mask=(row < stop)[:, None] & (dim < SIZE)[None, :], other=0.0)


@triton.jit
def _load_keys(
    keys, pages, token, length, head, page_stride, head_stride, token_stride, dim_stride,
    PAGE: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """[WIDTH, tokens]; zeros from `length` on, and beyond the head size."""
    dim = tl.arange(0, WIDTH)
    page = tl.load(pages + token // PAGE, mask=token < length, other=0).to(tl.int64)
    at = page * page_stride + head * head_stride + (token % PAGE) * token_stride
    at = at[None, :] + dim[:, None] * dim_stride
    return tl.load(keys + at, mask=(dim < SIZE)[:, None] & (token < length)[None, :], other=0.0)


@triton.jit(do_not_specialize=["result_stride", "table_stride"])
def _log_sum_exp(
    result, queries, keys, starts, lengths, table, scale,
    row_stride, query_stride, page_stride, head_stride, token_stride, dim_stride, result_stride, table_stride,
    GROUP: tl.constexpr, PAGE: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """result [heads, N] of one tile of rows of one head and request."""
    head, request = tl.program_id(1), tl.program_id(2)
    first_row = tl.load(starts + request) + tl.program_id(0) * ROWS
    stop = tl.load(starts + request + 1)
    if first_row >= stop:
        return
    row = first_row + tl.arange(0, ROWS)
    length = tl.load(lengths + request)
    pages = table + request * table_stride
    q = _load_queries(queries, row, stop, head, row_stride, query_stride, SIZE, WIDTH)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, length, KEYS):
        token = first + tl.arange(0, KEYS)
        k = _load_keys(
            keys, pages, token, length, head // GROUP, page_stride, head_stride, token_stride, dim_stride,
            PAGE, SIZE, WIDTH,
        )  # fmt: skip
        score = tl.dot(q.to(DOT), k.to(DOT), input_precision="ieee") * scale
        score = tl.where((token < length)[None, :], score, float("-inf"))
        new = tl.maximum(largest, tl.max(score, 1))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(score - new[:, None]), 1)
        largest = new
    tl.store(result + head * result_stride + row, largest + tl.log(total), mask=row < stop)


@triton.jit(do_not_specialize=["longest", "sums_stride", "table_stride"])
def _probabilities(
    result, weights, sums, queries, keys, starts, lengths, table, scale, longest,
    row_stride, query_stride, page_stride, head_stride, token_stride, dim_stride, sums_stride, table_stride,
    GROUP: tl.constexpr, PAGE: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, DOT: tl.constexpr, MASS: tl.constexpr,
):  # fmt: skip
    """One tile of keys of one head and request, all of its rows.

    With MASS the weighted sum over the rows, result [requests, heads, longest]; else all of them, result
    [heads, N, longest].
    """
    head, request = tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + request)
    token = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    k = _load_keys(
        keys, table + request * table_stride, token, length, head // GROUP,
        page_stride, head_stride, token_stride, dim_stride, PAGE, SIZE, WIDTH,
    )  # fmt: skip
    mass = tl.zeros([KEYS], tl.float32)
    stop = tl.load(starts + request + 1)
    for first in range(tl.load(starts + request), stop, ROWS):
        row = first + tl.arange(0, ROWS)
        q = _load_queries(queries, row, stop, head, row_stride, query_stride, SIZE, WIDTH)
        score = tl.dot(q.to(DOT), k.to(DOT), input_precision="ieee") * scale
        lse = tl.load(sums + head * sums_stride + row, mask=row < stop, other=0.0)
        p = tl.where((token < length)[None, :], tl.exp(score - lse[:, None]), 0.0)
        if MASS:
            weight = tl.load(weights + row, mask=row < stop, other=0.0)
            mass += tl.sum(p * weight[:, None], 0)
        else:
            at = (head * sums_stride + row).to(tl.int64)[:, None] * longest + token[None, :]
            tl.store(result + at, p, mask=(row < stop)[:, None] & (token < longest)[None, :])
    if MASS:
        at = (request * tl.num_programs(1) + head) * longest + token
        tl.store(result + at, mass, mask=token < longest)


def attention_mass(
    queries: torch.Tensor, weights: torch.Tensor, keys: torch.Tensor, scale: float, of: QuerySet
) -> torch.Tensor:
    """As in reference.py."""
    result = queries.new_empty((len(of), queries.shape[1], of.longest), dtype=torch.float32)
    _launch(result, weights, queries, keys, scale, of)
    return result.sum(1)


def attention_weights(queries: torch.Tensor, keys: torch.Tensor, scale: float, of: QuerySet) -> torch.Tensor:
    """As in reference.py."""
    result = queries.new_empty((queries.shape[1], len(queries), of.longest), dtype=torch.float32)
    _launch(result, None, queries, keys, scale, of)
    return result


def _launch(
    result: torch.Tensor,
    weights: torch.Tensor | None,
    queries: torch.Tensor,
    keys: torch.Tensor,
    scale: float,
    of: QuerySet,
) -> None:
    number, heads, size = queries.shape
    queries = queries.contiguous()
    starts, lengths, table = of.for_kernels
    width = max(16, triton.next_power_of_2(size))
    tile = 64 if width * queries.element_size() <= 256 else 32  # two or three must fit into shared memory
    shared = {
        "GROUP": heads // keys.shape[1],
        "PAGE": of.page_size,
        "SIZE": size,
        "WIDTH": width,
        "ROWS": min(tile, next(rows for rows in ROWS if rows >= min(of.most, ROWS[-1]))),
        "KEYS": tile,
        "DOT": DOT[queries.dtype] if queries.is_cuda else tl.float32,  # the interpreter takes bfloat16 for integers
        "num_stages": 2,
    }
    sums = queries.new_empty((heads, number), dtype=torch.float32)
    strides = (*queries.stride()[:2], *keys.stride(), number, table.stride(0))
    grid = (max(1, triton.cdiv(of.most, shared["ROWS"])), heads, len(of))
    _log_sum_exp[grid](sums, queries, keys, starts, lengths, table, scale, *strides, **shared)
    grid = (triton.cdiv(of.longest, tile), heads, len(of))
    _probabilities[grid](
        result, weights, sums, queries, keys, starts, lengths, table, scale, of.longest, *strides, **shared,
        MASS=weights is not None,
    )  # fmt: skip
