"""Rotary embedding in float32, in place, in Triton: one launch for query and key, whatever their dtype."""

import torch
import triton
import triton.language as tl

HEADS = 4  # of one position, for each program: few positions still fill a card


@triton.jit
def _rotate(
    x, cos, sin, tile, heads, size, dim, HALF: tl.constexpr, HEADS: tl.constexpr
):  # fmt: skip
    """Turns the pairs (i, i + HALF) of some heads of `x`, one position's [heads, size]."""
    head = tile * HEADS + tl.arange(0, HEADS)
    at = x + head[:, None] * size + dim[None, :]
    there = (head < heads)[:, None] & (dim < HALF)[None, :]
    a = tl.load(at, mask=there, other=0.0).to(tl.float32)
    b = tl.load(at + HALF, mask=there, other=0.0).to(tl.float32)
    tl.store(at, (a * cos - b * sin).to(x.dtype.element_ty), mask=there)
    tl.store(at + HALF, (b * cos + a * sin).to(x.dtype.element_ty), mask=there)


@triton.jit
def _rotate_both(
    query, key, positions, cache, query_stride, key_stride, query_heads, key_heads,
    SIZE: tl.constexpr, HALF: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Some heads of one position: the first programs have the query's, the others the key's."""
    line, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, WIDTH)
    row = cache + tl.load(positions + line) * 2 * HALF + dim
    cos = tl.load(row, mask=dim < HALF, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(row + HALF, mask=dim < HALF, other=0.0).to(tl.float32)[None, :]
    tiles = tl.cdiv(query_heads, HEADS)
    if tile < tiles:
        _rotate(query + line * query_stride, cos, sin, tile, query_heads, SIZE, dim, HALF, HEADS)
    else:
        _rotate(key + line * key_stride, cos, sin, tile - tiles, key_heads, SIZE, dim, HALF, HEADS)


def rotate(positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor, cache: torch.Tensor, size: int) -> None:
    """Rotates `query` [N, heads * size] and `key` [N, kv heads * size] in place; they may be parts of a wider tensor.

    `cache` [max position, rotary dim]: the cosines, then the sines, of each position. As vLLM's rotary embedding does
    it in "neox style", where dimensions i and i + rotary dim / 2 are a pair.
    """
    assert query.stride(1) == key.stride(1) == cache.stride(1) == 1 and cache.is_contiguous()
    half = cache.shape[1] // 2
    heads, kv_heads = query.shape[1] // size, key.shape[1] // size
    grid = (len(positions), triton.cdiv(heads, HEADS) + triton.cdiv(kv_heads, HEADS))
    if len(positions):
        _rotate_both[grid](
            query, key, positions, cache, query.stride(0), key.stride(0), heads, kv_heads,
            SIZE=size, HALF=half, WIDTH=triton.next_power_of_2(half), HEADS=HEADS, num_warps=4,
        )  # fmt: skip
