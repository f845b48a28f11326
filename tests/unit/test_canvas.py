"""The canvas: masked positions, blocks, the final prefix."""

import numpy as np
import pytest

from vllm_dllm.canvas import NEVER, Canvas

MASK = 1


def test_a_new_canvas():
    canvas = Canvas([7, 8, 9], gen_length=10, block_length=4, mask_id=MASK)
    assert canvas.length == 13 and canvas.num_blocks == 3
    assert canvas.tokens.tolist() == [7, 8, 9] + [MASK] * 10 and canvas.tokens.dtype == np.int32
    assert canvas.response.tolist() == [MASK] * 10
    assert canvas.block_range == (0, 4) and canvas.candidates().tolist() == [0, 1, 2, 3]
    assert canvas.prefix == 0 and not canvas.done
    assert (canvas.unmasked_in == NEVER).all()


def test_blocks_follow_each_other_and_the_last_is_shorter():
    canvas = Canvas([7], gen_length=10, block_length=4, mask_id=MASK)
    canvas.unmask(np.array([1, 3]), np.array([21, 23]))
    assert canvas.block_range == (0, 4) and canvas.candidates().tolist() == [0, 2] and canvas.prefix == 0
    canvas.unmask(np.array([0]), np.array([20]))
    assert canvas.prefix == 2
    canvas.unmask(np.array([2]), np.array([22]))
    assert canvas.block_range == (4, 8) and canvas.prefix == 4
    canvas.unmask(np.arange(4, 8), np.arange(24, 28))
    assert canvas.block_range == (8, 10) and canvas.candidates().tolist() == [8, 9]
    canvas.unmask(np.array([8, 9]), np.array([28, 29]))
    assert canvas.done and canvas.prefix == 10
    assert canvas.tokens.tolist() == [7, *range(20, 30)]
    assert canvas.unmasked_in.tolist() == [1, 0, 2, 0, 3, 3, 3, 3, 4, 4] and canvas.passes == 5


def test_a_pass_may_unmask_nothing():
    canvas = Canvas([7], gen_length=2, block_length=2, mask_id=MASK)
    canvas.unmask(np.empty(0, np.int64), np.empty(0, np.int32))
    assert canvas.passes == 1 and canvas.masked.all() and not canvas.done


def test_a_block_longer_than_the_response_is_the_response():
    canvas = Canvas([7], gen_length=5, block_length=32, mask_id=MASK)
    assert canvas.block_length == 5 and canvas.num_blocks == 1 and len(canvas.candidates()) == 5


def test_a_mask_token_in_the_prompt_is_a_prompt_token():
    canvas = Canvas([7, MASK, MASK], gen_length=2, block_length=2, mask_id=MASK)
    assert canvas.candidates().tolist() == [0, 1]
    canvas.unmask(np.array([0, 1]), np.array([5, 6]))
    assert canvas.done and canvas.tokens.tolist() == [7, MASK, MASK, 5, 6]


def test_a_token_that_equals_the_mask_is_not_masked():
    canvas = Canvas([7], gen_length=2, block_length=2, mask_id=MASK)
    canvas.unmask(np.array([0]), np.array([MASK]))
    assert canvas.prefix == 1 and canvas.candidates().tolist() == [1]


@pytest.mark.parametrize("seed", range(50))
def test_any_order_of_unmasking(seed):
    rng = np.random.default_rng(seed)
    gen_length, block_length = rng.integers(1, 40), rng.integers(1, 50)
    canvas = Canvas([7] * int(rng.integers(1, 5)), int(gen_length), int(block_length), MASK)
    fixed: dict[int, int] = {}
    while not canvas.done:
        start, stop = canvas.block_range
        candidates = canvas.candidates()
        assert len(candidates) and start <= candidates[0] and candidates[-1] < stop
        assert not set(candidates.tolist()) & set(fixed)
        assert all(p in fixed for p in range(start)), "an earlier block is unfinished"
        chosen = rng.permutation(candidates)[: rng.integers(0, len(candidates) + 1)]
        tokens = rng.integers(2, 100, len(chosen))
        canvas.unmask(chosen, tokens)
        fixed |= dict(zip(chosen.tolist(), tokens.tolist(), strict=True))
        assert canvas.response.tolist() == [fixed.get(p, MASK) for p in range(canvas.gen_length)]
        assert canvas.prefix == next((p for p in range(canvas.gen_length) if p not in fixed), canvas.gen_length)
    assert len(fixed) == canvas.gen_length
