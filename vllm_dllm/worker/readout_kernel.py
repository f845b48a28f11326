"""The greedy read-out in Triton: what `readout_reference.read_greedily` reads, in one sweep of the logits as the head gives them.

    logits of a line    | tile 0 | tile 1 | ..     a program each: the two largest logits and where they are,
                             |        |            the sums of exp(x) and x exp(x), scaled by the largest
    line                     +--------+-- ..       a program: the tiles' numbers put together

Every program loads its tile once and keeps it in registers, so a line costs one read of memory and one exp for each
token; a few lines of a large vocabulary still fill a card. All sums are in float32 and in one order.
"""

import torch
import triton
import triton.language as tl

TILE = 8192  # tokens: 32 for each thread of 8 warps


@triton.jit
def _largest(x):
    """The largest of `x` [n], and where it is: the first among equals."""
    return tl.max(x, 0, return_indices=True, return_indices_tie_break_left=True)


@triton.jit
def _apart(x, y):
    """x - y in float64."""
    return x.to(tl.float64) - y.to(tl.float64)


@triton.jit
def _read_tiles(best, places, sums, doubles, logits, line_stride, vocab_size, TILE: tl.constexpr, DOUBLE: tl.constexpr):
    """best, places [lines, tiles, 2]: a tile's two largest logits, and their tokens.

    sums [lines, tiles, 2]: those of exp(d) and d exp(d), d a logit's distance from the tile's largest. A NaN counts as
    an infinity, so that it is the largest. doubles [lines, tiles]: the first sum in float64, if DOUBLE.
    """
    line, tile = tl.program_id(0), tl.program_id(1)
    place = tl.arange(0, TILE)
    start = tile * TILE
    at = logits + line.to(tl.int64) * line_stride + start + place
    x = tl.load(at, mask=start + place < vocab_size, other=float("-inf")).to(tl.float32)
    x = tl.where(x == x, x, float("inf"))
    first, first_at = _largest(x)
    second, second_at = _largest(tl.where(place == first_at, float("-inf"), x))
    out = (line * tl.num_programs(1) + tile) * 2
    tl.store(best + out, first)
    tl.store(best + out + 1, second)
    tl.store(places + out, start + first_at)
    tl.store(places + out + 1, start + second_at)
    # exp(-200) is 0 in float32: the bound keeps -inf - -inf and 0 * inf out
    shift = tl.where(tl.abs(first) == float("inf"), 0.0, first)
    distance = tl.maximum(x - shift, -200.0)
    e = tl.exp(distance)
    tl.store(sums + out, tl.sum(e, 0))
    tl.store(sums + out + 1, tl.sum(tl.where(e > 0, distance * e, 0.0), 0))
    if DOUBLE:  # the difference of two float32 is exact in float64, but for what is far below the largest
        exact = tl.maximum(_apart(x, shift), -200.0)
        tl.store(doubles + out // 2, tl.sum(tl.exp(exact), 0))


@triton.jit(do_not_specialize=["row"])
def _put_together(
    packed, confidences, best, places, sums, doubles, row, tiles, vocab_size,
    MASK: tl.constexpr, TILES: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """packed [5, lines], rows `row` apart: token, confidence, margin, entropy, whether the line is broken.

    confidences [lines]: the confidence in float64, if DOUBLE.
    """
    line = tl.program_id(0)
    tile = tl.arange(0, TILES)
    there = tile < tiles
    at = (line * tiles + tile) * 2
    first = tl.load(best + at, mask=there, other=float("-inf"))
    second = tl.load(best + at + 1, mask=there, other=float("-inf"))
    first_at = tl.load(places + at, mask=there, other=0)
    second_at = tl.load(places + at + 1, mask=there, other=0)
    largest, own = _largest(first)
    token = tl.sum(tl.where(tile == own, first_at, 0), 0)
    # behind the largest: the second of its own tile, or the first of another
    second, other = _largest(tl.where(tile == own, second, first))
    second_token = tl.sum(tl.where(tile == other, tl.where(tile == own, second_at, first_at), 0), 0)
    barred = token == MASK
    chosen = tl.where(barred, second, largest)
    token = tl.where(barred, second_token, token)
    broken = (largest == float("inf")) | (chosen == float("-inf"))

    shift = tl.where(broken, 0.0, largest)
    down = tl.maximum(first - shift, -200.0)  # from the line's largest to the tile's
    scale = tl.where(there & (first > float("-inf")), tl.exp(down), 0.0)
    tile_sum = tl.load(sums + at, mask=there, other=0.0)
    total = tl.sum(scale * tile_sum, 0)
    weighted = tl.sum(scale * (tl.load(sums + at + 1, mask=there, other=0.0) + down * tile_sum), 0)
    confidence = tl.exp(tl.maximum(chosen - shift, -200.0)) / total
    margin = (1.0 - tl.exp(tl.maximum(second - shift, -200.0))) / total
    entropy = tl.log(total) - weighted / total
    # a broken line is read as zeros
    confidence = tl.where(broken, 1.0 / vocab_size, confidence)
    margin = tl.where(broken, 0.0, margin)
    entropy = tl.where(broken, tl.log(vocab_size.to(tl.float32)), entropy)
    token = tl.where(broken, 1 if MASK == 0 else 0, token)

    if DOUBLE:
        scales = tl.where(there & (first > float("-inf")), tl.exp(tl.maximum(_apart(first, shift), -200.0)), 0.0)
        exact = tl.sum(scales * tl.load(doubles + line * tiles + tile, mask=there, other=0.0), 0)
        exact = tl.exp(tl.maximum(_apart(chosen, shift), -200.0)) / exact
        tl.store(confidences + line, tl.where(broken, 1.0 / vocab_size.to(tl.float64), exact))

    packed += line
    tl.store(packed, token)
    tl.store(packed + row, confidence.to(tl.int32, bitcast=True))
    tl.store(packed + 2 * row, margin.to(tl.int32, bitcast=True))
    tl.store(packed + 3 * row, entropy.to(tl.int32, bitcast=True))
    tl.store(packed + 4 * row, broken.to(tl.int32))


def read_greedily(
    logits: torch.Tensor,
    mask_id: int,
    packed: torch.Tensor,
    confidences: torch.Tensor | None = None,
    margin: bool = True,
    entropy: bool = True,
) -> None:
    """Fills `packed`, int32 [5, N], from logits [N, vocabulary] in any float dtype, which stay as they are; and
    `confidences`, float64 [N], if given. Margin and entropy cost nothing here, wanted or not.

    It reads what `readout_reference.read_greedily` does, but for the entropy: it has none of the 1e-10 beside each
    probability there, which makes it up to 1e-10 nats times the vocabulary larger.
    """
    lines, vocab_size = logits.shape
    assert logits.stride(1) == packed.stride(1) == 1
    if not lines:
        return
    tiles = triton.cdiv(vocab_size, TILE)
    best, sums = logits.new_empty((2, lines, tiles, 2), dtype=torch.float32)
    places = logits.new_empty((lines, tiles, 2), dtype=torch.int32)
    double = confidences is not None
    doubles = logits.new_empty((lines, tiles), dtype=torch.float64) if double else sums
    _read_tiles[(lines, tiles)](
        best, places, sums, doubles, logits, logits.stride(0), vocab_size, TILE=TILE, DOUBLE=double, num_warps=8
    )
    _put_together[(lines,)](
        packed, confidences if double else sums, best, places, sums, doubles, packed.stride(0), tiles, vocab_size,
        MASK=mask_id, TILES=triton.next_power_of_2(tiles), DOUBLE=double, num_warps=1,
    )  # fmt: skip
