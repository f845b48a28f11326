"""Several blocks at once, and rules and ends that come with them (d3LLM)."""

import numpy as np
import pytest
from decoding_helpers import MASK, candidates, full_scores, new_canvas, observe, unmask

from vllm_dllm.canvas import Canvas
from vllm_dllm.frontier import MultiBlock
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, resolve
from vllm_dllm.unmasking.entropy_threshold import DreamEntropyThreshold, EntropyThreshold

LLADA, DREAM = ModelTraits(MASK, 0, "llada"), ModelTraits(MASK, -1, "dream")


def multi_block(gen_length: int, block_length: int, add_threshold: float, **other) -> Canvas:
    horizon = other.pop("horizon", None)
    return Canvas([5] * 3, gen_length, MASK, MultiBlock(block_length, add_threshold, horizon), **other)


def test_a_block_is_opened_when_enough_of_the_last_one_is_known():
    canvas = multi_block(10, 4, 0.5)
    assert candidates(canvas) == [0, 1, 2, 3]
    unmask(canvas, [1])
    assert candidates(canvas) == [0, 2, 3]
    unmask(canvas, [2])
    assert candidates(canvas) == [0, 3, 4, 5, 6, 7] and canvas.block == (3, 11) and canvas.frontier.number == 0
    unmask(canvas, [0, 3])
    assert canvas.block == (7, 11) and canvas.block_passes == 0
    unmask(canvas, [6, 7])
    assert candidates(canvas) == [4, 5, 8, 9], "the last block is shorter"
    assert canvas.frontier.opened_blocks(canvas) == [(3, 7), (7, 11), (11, 13)]
    unmask(canvas, [8, 9])
    unmask(canvas, [4, 5])
    assert canvas.done


def test_a_pass_opens_one_block_more_at_most():
    canvas = multi_block(12, 3, 0.0)
    opened = [len(canvas.frontier.opened_blocks(canvas))]
    while not canvas.done:
        unmask(canvas, candidates(canvas)[:1])
        opened.append(len(canvas.frontier.opened_blocks(canvas)))
    assert opened[:4] == [2, 3, 4, 4]


def test_given_blocks_are_passed_over():
    given = {p: 30 for p in (3, 4, 5, 6, 8, 9, 10, 13)}
    canvas = multi_block(12, 4, 1.0, given=given)
    assert canvas.block == (7, 11) and candidates(canvas) == [4]
    unmask(canvas, [4])
    assert canvas.block == (11, 15) and candidates(canvas) == [8, 9, 11]


def test_the_canvas_exists_behind_the_last_opened_block():
    canvas = multi_block(16, 4, 0.5, horizon=2)
    assert canvas.end == 3 + 4 + 2
    unmask(canvas, [0, 1])
    assert canvas.end == 3 + 8 + 2


def select(rule, canvas, entropy) -> list[int]:
    seen = observe(canvas, entropy, entropy)
    return sorted((rule.select(canvas, full_scores(canvas, -seen.entropy), seen, None) - 3).tolist())


def test_entropy_threshold_in_one_block():
    canvas = new_canvas(4)
    for rule in (EntropyThreshold, DreamEntropyThreshold):
        assert select(rule(0.5), canvas, [0.75, 0.1, 0.4, 2.0]) == [1, 2]
        assert select(rule(0.05), canvas, [0.75, 0.1, 0.4, 2.0]) == [1], "at least one"
    assert select(EntropyThreshold(0.5), canvas, [0.1, 0.5, 0.5, 2.0]) == [0, 1, 2]
    assert select(DreamEntropyThreshold(0.5), canvas, [0.1, 0.5, 0.5, 2.0]) == [0]


def test_the_first_of_several_blocks_always_goes_on():
    canvas = multi_block(8, 4, 0.0)
    entropy = [3.0, 1.0, 2.0, 3.0, 0.25, 2.0, 0.75, 3.0]
    assert (
        select(EntropyThreshold(0.5), canvas, entropy) == select(DreamEntropyThreshold(0.5), canvas, entropy) == [1, 4]
    )
    # LLaDA's code takes the one with the least entropy of all besides, Dream's does not
    assert select(EntropyThreshold(0.1), canvas, entropy) == [1, 4]
    assert select(DreamEntropyThreshold(0.1), canvas, entropy) == [1]


def test_everything_behind_an_end_becomes_that_end():
    canvas = Canvas([7], 6, MASK, MultiBlock(2, 0.0), suffix_ids=[40], fill_behind=frozenset((0, 9)))
    canvas.unmask(np.asarray([2, 4]), np.asarray([30, 31], np.int32))
    assert canvas.candidates.tolist() == [1, 3, 5, 6]
    canvas.unmask(np.asarray([3]), np.asarray([9], np.int32))
    assert canvas.tokens.tolist() == [7, MASK, 30, 9, 9, 9, 9, 40] and canvas.candidates.tolist() == [1]
    assert canvas.just_unmasked.tolist() == [3, 5, 6]
    canvas.unmask(np.asarray([1]), np.asarray([0], np.int32))
    assert canvas.tokens.tolist() == [7, 0, 0, 0, 0, 0, 0, 40] and canvas.done


def test_what_does_not_exist_yet_is_filled_too():
    canvas = Canvas([7], 6, MASK, MultiBlock(2, 1.0, horizon=1), fill_behind=frozenset((0,)))
    canvas.unmask(np.asarray([2]), np.asarray([0], np.int32))
    assert canvas.just_unmasked.tolist() == [2, 3] and canvas.end == 4
    assert canvas.tokens.tolist() == [7, MASK, 0, 0, 0, 0, 0] and canvas.candidates.tolist() == [1]


def test_what_the_settings_choose():
    s = resolve({}, {"dllm_entropy_threshold": 0.5, "dllm_block_add_threshold": 0.1}, LLADA)
    assert (s.rule, s.score, s.needs_entropy) == (EntropyThreshold, "entropy", True)
    assert isinstance(s.make_frontier(), MultiBlock) and s.make_frontier().add_threshold == 0.1
    assert resolve({"dllm_entropy_threshold": 0.5}, {}, DREAM).rule is DreamEntropyThreshold
    server = {"dllm_block_add_threshold": 0.1, "dllm_early_stop": True}
    assert resolve(server, {}, LLADA).early_stop
    assert not isinstance(resolve(server, {"dllm_steps": 8}, LLADA).make_frontier(), MultiBlock)
    assert not isinstance(resolve(server, {"dllm_cache": "d2"}, LLADA).make_frontier(), MultiBlock)
    assert not resolve(server, {"dllm_drop_behind_end": True}, LLADA).early_stop
    assert not resolve(server, {"dllm_early_stop": False}, LLADA).early_stop


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"dllm_entropy_threshold": 0.5, "dllm_score": "margin"}, "dllm_score='margin' is not allowed"),
        ({"dllm_entropy_threshold": -0.5}, "dllm_entropy_threshold=-0.5 is not allowed"),
        ({"dllm_block_add_threshold": 1.5}, "it must be a number from 0 to 1"),
        ({"dllm_block_add_threshold": 0.5, "dllm_steps": 8}, "dllm_block_add_threshold=0.5 is not read by"),
        ({"dllm_block_add_threshold": 0.5, "dllm_window_length": 8}, "dllm_block_add_threshold=0.5 is not read by"),
        ({"dllm_block_add_threshold": 0.5, "dllm_cache": "d2"}, "dllm_block_add_threshold=0.5 is not read by"),
        ({"dllm_cache": "d3", "dllm_window_length": 8}, "dllm_cache=d3 is not allowed with"),
        ({"dllm_early_stop": True, "dllm_drop_behind_end": True}, "contradict each other"),
    ],
)
def test_refused(keys, words):
    with pytest.raises(SettingError) as refused:
        resolve({}, keys, LLADA)
    assert words in str(refused.value)
