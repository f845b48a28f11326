"""The canvas: given and masked positions, its end, blocks and windows, the final prefix."""

import numpy as np
import pytest

from vllm_dllm.canvas import NEVER, Canvas
from vllm_dllm.frontier import Blocks, Window

MASK = 1


def blocks(prompt: list[int], gen_length: int, block_length: int, **more) -> Canvas:
    return Canvas(prompt, gen_length, MASK, Blocks(block_length), **more)


def unmask(canvas: Canvas, positions: list[int], tokens: list[int] | None = None) -> None:
    tokens = [20 + p for p in positions] if tokens is None else tokens
    canvas.unmask(np.asarray(positions, np.int64), np.asarray(tokens, np.int32))


def test_a_new_canvas():
    canvas = blocks([7, 8, 9], gen_length=10, block_length=4)
    assert canvas.length == canvas.end == 13 and canvas.frontier.count == 3
    assert canvas.tokens.tolist() == [7, 8, 9] + [MASK] * 10 and canvas.tokens.dtype == np.int32
    assert canvas.response.tolist() == [MASK] * 10
    assert canvas.block == (3, 7) and canvas.candidates.tolist() == [3, 4, 5, 6]
    assert canvas.final == 0 and not canvas.done
    assert (canvas.unmasked_in == NEVER).all() and not len(canvas.just_unmasked)


def test_blocks_follow_each_other_and_the_last_is_shorter():
    canvas = blocks([7], gen_length=10, block_length=4)
    unmask(canvas, [2, 4])
    assert canvas.block == (1, 5) and canvas.candidates.tolist() == [1, 3] and canvas.final == 0
    unmask(canvas, [1])
    assert canvas.final == 2 and canvas.just_unmasked.tolist() == [1]
    unmask(canvas, [3])
    assert canvas.block == (5, 9) and canvas.final == 4 and canvas.block_passes == 0
    unmask(canvas, [5, 6, 7, 8])
    assert canvas.block == (9, 11) and canvas.candidates.tolist() == [9, 10]
    unmask(canvas, [9, 10])
    assert canvas.done and canvas.final == 10
    assert canvas.tokens.tolist() == [7, *range(21, 31)]
    assert canvas.unmasked_in.tolist() == [NEVER, 1, 0, 2, 0, 3, 3, 3, 3, 4, 4] and canvas.passes == 5


def test_a_pass_may_unmask_nothing():
    canvas = blocks([7], gen_length=2, block_length=2)
    unmask(canvas, [])
    assert canvas.passes == 1 and canvas.masked[1:].all() and not canvas.done


def test_a_block_longer_than_the_response_is_the_response():
    canvas = blocks([7], gen_length=5, block_length=32)
    assert canvas.block == (1, 6) and canvas.frontier.count == 1 and len(canvas.candidates) == 5


def test_a_mask_token_in_the_prompt_is_a_prompt_token():
    canvas = blocks([7, MASK, MASK], gen_length=2, block_length=2)
    assert canvas.candidates.tolist() == [3, 4]
    unmask(canvas, [3, 4], [5, 6])
    assert canvas.done and canvas.tokens.tolist() == [7, MASK, MASK, 5, 6]


def test_a_token_that_equals_the_mask_is_not_masked():
    canvas = blocks([7], gen_length=2, block_length=2)
    unmask(canvas, [1], [MASK])
    assert canvas.final == 1 and canvas.candidates.tolist() == [2]


def test_given_positions_are_final_and_never_candidates():
    canvas = blocks([7, 8], gen_length=6, block_length=3, given={2: 30, 4: 31, 5: 32}, suffix_ids=[40, 41])
    assert canvas.tokens.tolist() == [7, 8, 30, MASK, 31, 32, MASK, MASK, 40, 41]
    assert canvas.candidates.tolist() == [3] and canvas.final == 1 and canvas.length == 10
    unmask(canvas, [3])
    assert canvas.final == 4 and canvas.block == (5, 8) and canvas.candidates.tolist() == [6, 7]
    assert canvas.given.tolist() == [True, True, True, False, True, True, False, False, True, True]
    unmask(canvas, [6, 7])
    assert canvas.done and canvas.response.tolist() == [30, 23, 31, 32, 26, 27] and canvas.final == 6


def test_a_block_without_masked_positions_is_passed_over():
    canvas = blocks([7], gen_length=6, block_length=2, given={1: 30, 2: 31, 5: 34, 6: 35})
    assert canvas.block == (3, 5) and canvas.final == 2 and canvas.frontier.number == 1
    unmask(canvas, [3, 4])
    assert canvas.done and canvas.final == 6
    whole = blocks([7], gen_length=2, block_length=2, given={1: 30, 2: 31})
    assert whole.done and whole.final == 2 and not len(whole.candidates)


def test_what_does_not_exist_yet_is_no_candidate():
    canvas = Canvas([7], 8, MASK, Blocks(3, horizon=1), suffix_ids=[40, 41])
    assert canvas.end == 5 and canvas.candidates.tolist() == [1, 2, 3] and canvas.open().tolist() == [1, 2, 3, 4]
    unmask(canvas, [1, 3])
    assert canvas.end == 5 and canvas.candidates.tolist() == [2]
    unmask(canvas, [2])
    assert canvas.end == 8 and canvas.candidates.tolist() == [4, 5, 6] and canvas.open().tolist() == [4, 5, 6, 7]
    unmask(canvas, [4, 5, 6])
    assert canvas.end == canvas.length == 11 and canvas.candidates.tolist() == [7, 8]
    unmask(canvas, [7, 8])
    assert canvas.done and canvas.end == 11


def test_the_whole_canvas_exists_where_the_horizon_reaches_the_responses_end():
    for horizon, end in ((0, 4), (4, 8), (5, 11), (900, 11)):
        assert Canvas([7], 8, MASK, Blocks(3, horizon), suffix_ids=[40, 41]).end == end
    assert Canvas([7], 8, MASK, Blocks(3), suffix_ids=[40, 41]).end == 11


def test_given_blocks_are_passed_over_with_their_horizon():
    canvas = Canvas([7], 6, MASK, Blocks(2, horizon=0), given={1: 30, 2: 31, 5: 34})
    assert canvas.block == (3, 5) and canvas.end == 5
    unmask(canvas, [3, 4])
    assert canvas.end == 7 and canvas.candidates.tolist() == [6]


def test_a_canvas_grows_before_its_window():
    canvas = Canvas([7], 8, MASK, Window(2, horizon=1), given={2: 30}, drop_behind=frozenset((0,)))
    assert canvas.candidates.tolist() == [1, 3] and canvas.end == 5
    unmask(canvas, [1])
    assert canvas.candidates.tolist() == [3, 4] and canvas.end == 6
    unmask(canvas, [4], [0])
    assert canvas.candidates.tolist() == [3] and canvas.end == 6
    unmask(canvas, [3])
    assert canvas.done and canvas.end == 6


def test_a_window_slides_over_the_masked_positions():
    canvas = Canvas([7], 6, MASK, Window(3), given={2: 30}, suffix_ids=[40])
    assert canvas.candidates.tolist() == [1, 3, 4] and canvas.block == (1, 7)
    unmask(canvas, [3])
    assert canvas.candidates.tolist() == [1, 4, 5] and canvas.block_passes == 1
    unmask(canvas, [1, 4, 5])
    assert canvas.candidates.tolist() == [6] and canvas.final == 5
    unmask(canvas, [6])
    assert canvas.done


def test_masked_positions_behind_any_end_token_are_dropped():
    canvas = Canvas([7], 6, MASK, Window(6), drop_behind=frozenset((0, 9)))
    unmask(canvas, [4, 5], [9, 0])
    assert canvas.dropped_from == 5 and canvas.candidates.tolist() == [1, 2, 3] and not canvas.done
    unmask(canvas, [2], [0])
    assert canvas.candidates.tolist() == [1]
    unmask(canvas, [1])
    assert canvas.done and canvas.masked.tolist() == [False, False, False, True, False, False, True]


def test_positions_are_dropped_once_if_so_asked():
    canvas = Canvas([7], 6, MASK, Window(6), drop_behind=frozenset((0,)), drop_once=True)
    unmask(canvas, [4, 5], [0, 0])
    assert canvas.dropped_from == 5 and canvas.candidates.tolist() == [1, 2, 3]
    unmask(canvas, [2], [0])
    assert canvas.candidates.tolist() == [1, 3]


@pytest.mark.parametrize("seed", range(50))
def test_any_order_of_unmasking(seed):
    rng = np.random.default_rng(seed)
    gen_length, block_length, prompt_len = (int(rng.integers(1, n)) for n in (40, 50, 5))
    response = range(prompt_len, prompt_len + gen_length)
    fixed: dict[int, int] = {int(p): 300 + int(p) for p in rng.permutation(response)[: rng.integers(0, gen_length)]}
    suffix = [400] * int(rng.integers(0, 3))
    canvas = blocks([7] * prompt_len, gen_length, block_length, given=fixed, suffix_ids=suffix)
    while not canvas.done:
        start, stop = canvas.block
        candidates = canvas.candidates
        assert len(candidates) and start <= candidates[0] and candidates[-1] < stop <= canvas.response_end
        assert not set(candidates.tolist()) & set(fixed)
        assert all(p in fixed for p in range(prompt_len, start)), "an earlier block is unfinished"
        chosen = np.sort(rng.permutation(candidates)[: rng.integers(0, len(candidates) + 1)])
        tokens = rng.integers(2, 100, len(chosen))
        canvas.unmask(chosen, tokens)
        fixed |= dict(zip(chosen.tolist(), tokens.tolist(), strict=True))
        assert canvas.response.tolist() == [fixed.get(p, MASK) for p in response]
        assert canvas.final == next((i for i, p in enumerate(response) if p not in fixed), gen_length)
    assert len(fixed) == gen_length
