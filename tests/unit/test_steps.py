"""Fixed steps: LLaDA's and Dream's schedules."""

import numpy as np
import pytest
from decoding_helpers import full_scores, new_canvas, observe, unmask

from vllm_dllm.frontier import num_blocks
from vllm_dllm.options import SettingError
from vllm_dllm.unmasking.dream_steps import DreamSteps
from vllm_dllm.unmasking.steps import Steps


def counts(rule, canvas, rng=None) -> list[list[int]]:
    """How many positions each pass unmasks, block by block; scores are random, the best must be taken."""
    rng = rng or np.random.default_rng(0)
    passes: list[list[int]] = [[] for _ in range(canvas.frontier.count)]
    while not canvas.done:
        confidence = rng.random(len(canvas.candidates))
        seen = observe(canvas, confidence)
        block, candidates = canvas.frontier.number, canvas.candidates
        chosen = rule.select(canvas, full_scores(canvas, seen.confidence), seen, rng)
        best = candidates[np.argsort(-seen.confidence)[: len(chosen)]]
        if not rule.score == "origin" and not getattr(rule, "alg_temp", 0):
            assert sorted(chosen.tolist()) == sorted(best.tolist())
        assert set(chosen.tolist()) <= set(candidates.tolist())
        passes[block].append(len(chosen))
        unmask(canvas, chosen - canvas.prompt_len)
        assert sum(map(len, passes)) < 1000, "does not end"
    return passes


# ---- LLaDA ----


def test_steps_of_one_block():
    assert counts(Steps(4), new_canvas(10)) == [[3, 3, 2, 2]]
    assert counts(Steps(10), new_canvas(10)) == [[1] * 10]
    assert counts(Steps(1), new_canvas(10)) == [[10]]


def test_steps_are_divided_over_the_blocks():
    assert counts(Steps(6), new_canvas(16, block_length=8)) == [[3, 3, 2], [3, 3, 2]]


def test_steps_of_a_shorter_last_block():
    # three steps a block: 4 positions as 2, 1, 1; the last block's 2 as 1, 1, and none is left for the third
    assert counts(Steps(9), new_canvas(10, block_length=4)) == [[2, 1, 1], [2, 1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("steps", "gen_length", "block_length"), [(3, 16, 8), (5, 16, 8), (1, 16, 8), (32, 16, 8), (17, 16, 16), (4, 10, 4)]
)
def test_steps_that_do_not_divide(steps, gen_length, block_length):
    blocks = num_blocks(gen_length, block_length)
    for rule in (Steps(steps), DreamSteps(steps)):
        with pytest.raises(SettingError) as refused:
            rule.check(gen_length, blocks, block_length)
        assert f"dllm_steps={steps} is not allowed" in str(refused.value)
        assert f"multiple of the number of blocks ({blocks}," in str(refused.value)
        assert f"at most {gen_length}" in str(refused.value)


@pytest.mark.parametrize(("steps", "gen_length", "block_length"), [(16, 16, 8), (2, 16, 8), (9, 10, 4), (1, 1, 1)])
def test_steps_that_divide(steps, gen_length, block_length):
    Steps(steps).check(gen_length, num_blocks(gen_length, block_length), block_length)


@pytest.mark.parametrize("seed", range(50))
def test_steps_by_their_statement(seed):
    rng = np.random.default_rng(seed)
    canvas = new_canvas(int(rng.integers(1, 60)), int(rng.integers(1, 30)))
    each = int(rng.integers(1, max(1, canvas.gen_length // canvas.frontier.count) + 1))
    want = []
    for block in range(canvas.frontier.count):
        length = canvas.frontier.block_length
        m = min(length, canvas.gen_length - block * length)
        want.append([n for i in range(each) if (n := m // each + (i < m % each))])
    assert counts(Steps(each * canvas.frontier.count), canvas, rng) == want


# ---- Dream ----


def dream_schedule(masked: int, steps: int, eps: float = 1e-3) -> list[int]:
    """methods.md's words, in float64; it says what float32 says wherever the product is no whole number."""
    t = np.linspace(1, eps, steps + 1)
    done = []
    for i in range(steps):
        n = int(masked * (1 - t[i + 1] / t[i])) if i < steps - 1 else masked
        done.append(n)
        masked -= n
    return done


def test_dream_steps_by_hand():
    # t = 1, .75025, .5005, .25075, .001: shares .24975, .33289, .49900, 1 of 10, 8, 6, 4
    assert counts(DreamSteps(4), new_canvas(10)) == [[2, 2, 2, 4]]


@pytest.mark.parametrize(("masked", "steps"), [(64, 10), (33, 7), (100, 99), (17, 5), (5, 5), (48, 13)])
def test_dream_steps_by_their_statement(masked, steps):
    got = counts(DreamSteps(steps), new_canvas(masked))
    want = dream_schedule(masked, steps)
    assert sum(got[0]) == masked and len(got[0]) == steps
    assert np.abs(np.cumsum(got[0]) - np.cumsum(want)).max() <= 1  # rounding, where the product is nearly whole


def test_dream_steps_count_anew_in_each_block():
    got = counts(DreamSteps(8), new_canvas(20, block_length=10))
    assert got == [[2, 2, 2, 4]] * 2


def by_origin(steps: int) -> DreamSteps:
    rule = DreamSteps(steps)
    rule.score = "origin"
    return rule


def test_origin_unmasks_each_with_the_steps_probability():
    steps, n = 5, 400
    t = np.linspace(1, 1e-3, steps + 1)
    rng = np.random.default_rng(1)
    (got,) = counts(by_origin(steps), new_canvas(n), rng)
    assert len(got) == steps and sum(got) == n
    left = n
    for i, count in enumerate(got[:-1]):
        share = 1 - t[i + 1] / t[i]
        assert abs(count - left * share) < 4.5 * (left * share * (1 - share)) ** 0.5
        left -= count
    assert got[-1] == left


def test_origin_looks_at_no_score():
    canvas, rule = new_canvas(200), by_origin(2)
    seen = observe(canvas, np.linspace(0, 1, 200))
    chosen = rule.select(canvas, full_scores(canvas, seen.confidence), seen, np.random.default_rng(3))
    assert 70 < len(chosen) < 130 and 80 < (chosen - canvas.prompt_len).mean() < 120


def drawn(scores, alg_temp, n_steps=2, draws=3000) -> np.ndarray:
    """How often each position is among those of the first step, over many generators."""
    hits = np.zeros(len(scores))
    for seed in range(draws):
        canvas, rule = new_canvas(len(scores)), DreamSteps(n_steps, alg_temp=alg_temp)
        seen = observe(canvas, scores)
        chosen = rule.select(canvas, full_scores(canvas, seen.confidence), seen, np.random.default_rng(seed))
        hits[chosen - canvas.prompt_len] += 1
    return hits / draws


def test_alg_temp_draws_by_softmax():
    """Three positions, two steps: the first unmasks int(3 * .4995) = 1, drawn by softmax(score / alg_temp)."""
    scores = np.array([0.9, 0.5, 0.1])
    for alg_temp in (0.3, 1.0):
        weights = np.exp(scores / alg_temp)
        weights /= weights.sum()
        got = drawn(scores, alg_temp)
        assert got.sum() == pytest.approx(1)
        assert (np.abs(got - weights) < 4.5 * np.sqrt(weights * (1 - weights) / 3000)).all()


def test_alg_temp_draws_without_replacement():
    """Five positions, two steps: two at a time. P(i) = p_i + sum_j p_j p_i / (1 - p_j)."""
    scores = np.array([0.9, 0.7, 0.5, 0.3, 0.1])
    p = np.exp(scores / 0.3)
    p /= p.sum()
    want = np.array([p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(5) if j != i) for i in range(5)])
    got = drawn(scores, 0.3)
    assert got.sum() == pytest.approx(2)
    assert (np.abs(got - want) < 4.5 * np.sqrt(want * (1 - want) / 3000)).all()


@pytest.mark.parametrize("alg_temp", [1e-300, 1e-6])
def test_a_small_alg_temp_ranks(alg_temp):
    """All other weights vanish; as many positions are unmasked as the step says, and those are the best."""
    canvas, rule = new_canvas(10), DreamSteps(4, alg_temp=alg_temp)
    seen = observe(canvas, np.linspace(0.1, 0.9, 10))
    chosen = rule.select(canvas, full_scores(canvas, seen.confidence), seen, np.random.default_rng(0))
    assert sorted((chosen - canvas.prompt_len).tolist()) == [8, 9]


def test_alg_temp_ends_in_time():
    assert counts(DreamSteps(4, alg_temp=0.5), new_canvas(10)) == [[2, 2, 2, 4]]
