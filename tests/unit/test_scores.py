"""The scores that rank candidates, and the certainty density against its sum."""

import numpy as np
import pytest
from decoding_helpers import new_canvas, observe, unmask

from vllm_dllm.unmasking.scores import certainty_densities, defer, response_certainties, response_certainty, score


def density_by_sum(known: np.ndarray, sigma: float) -> np.ndarray:
    """The density in float64, as a sum. The weights' sum runs over all distances, as the public code's does."""
    n = len(known)
    line = np.concatenate((np.ones(n), known, np.full(n, float(known[-1]))))
    density = np.empty(n)
    for i in range(n):
        weights = np.exp(-((np.arange(3 * n) - (n + i)) ** 2) / (2 * sigma**2))
        density[i] = (weights * line).sum() / np.exp(-(np.arange(-3 * n, 3 * n) ** 2) / (2 * sigma**2)).sum()
    return density


@pytest.mark.parametrize("seed", range(40))
def test_density_is_its_sum(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 200))
    known = rng.random(n) < rng.random()
    for sigma in (0.01, 0.5, 3.0, 10.0, 50.0):
        got = certainty_densities(known[None], sigma)[0]
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, density_by_sum(known, sigma), atol=2e-5)


def test_density_by_hand():
    """A width far below one token: a position's density is whether it is known."""
    known = np.array([True, False, True, False])
    np.testing.assert_allclose(certainty_densities(known[None], 0.01)[0], [1, 0, 1, 0], atol=1e-6)
    # g(0) = 1, g(1) = e^-1/2, g(2) = e^-2, g(3) = e^-4.5, ...; left of the response all is known
    g = np.exp(-(np.arange(0, 30) ** 2) / 2)
    total = g[0] + 2 * g[1:].sum()
    known = np.zeros(20, bool)
    known[[0, 2]] = True
    # position 1: all to its left, and position 2
    np.testing.assert_allclose(certainty_densities(known[None], 1.0)[0][1], (g[1:].sum() + g[1]) / total, atol=1e-6)


def test_right_of_the_response_counts_as_its_last_position():
    known = np.zeros(16, bool)
    assert certainty_densities(known[None], 2.0)[0][-1] < 0.01
    known[-1] = True
    assert certainty_densities(known[None], 2.0)[0][-1] > 0.5


def test_scores_of_each_kind():
    canvas = new_canvas(6, block_length=3)
    unmask(canvas, [1])
    seen = observe(canvas, [0.25, 0.5], entropy=[2.0, 1.0], margin=[0.125, 0.375])
    no = -np.inf
    prompt = [no] * canvas.prompt_len
    assert score("confidence", canvas, seen, None).tolist() == [*prompt, 0.25, no, 0.5, no, no, no]
    assert score("margin", canvas, seen, None).tolist() == [*prompt, 0.125, no, 0.375, no, no, no]
    assert score("entropy", canvas, seen, None).tolist() == [*prompt, -2.0, no, -1.0, no, no, no]
    fixed = np.arange(6, dtype=np.float32)
    assert score("random", canvas, seen, None, fixed).tolist() == [*prompt, 0.0, no, 2.0, no, no, no]


def test_random_scores_are_the_generators():
    canvas = new_canvas(100)
    seen = observe(canvas, np.zeros(100))
    a, b, c = (score("random", canvas, seen, np.random.default_rng(s)) for s in (1, 1, 2))
    a, b, c = (scores[canvas.candidates] for scores in (a, b, c))
    assert (a == b).all() and (a != c).any()
    assert 0 <= a.min() and a.max() < 1 and abs(a.mean() - 0.5) < 0.15


@pytest.mark.parametrize("kind", ["confidence", "margin", "entropy"])
def test_the_certainty_prior_multiplies(kind):
    canvas = new_canvas(12)
    unmask(canvas, [3, 4])
    rng = np.random.default_rng(5)
    seen = observe(canvas, rng.random(10), entropy=rng.random(10), margin=rng.random(10))
    plain, prior = score(kind, canvas, seen, None), score(kind, canvas, seen, None, sigma=2.0)
    at, start = canvas.candidates, canvas.prompt_len
    density = density_by_sum(~canvas.masked[start:], 2.0)
    np.testing.assert_allclose(prior[at], plain[at] * density[at - start], rtol=1e-4, atol=2e-5)
    assert (prior[[start + 3, start + 4]] == -np.inf).all()


def test_deferred_candidates_rank_below_all_others():
    canvas = new_canvas(6)
    seen = observe(canvas, [0.9, 0.2, 0.8, 0.7, 0.1, 0.6])  # tokens 13 to 18
    scores = score("confidence", canvas, seen, None)
    defer(scores, seen, np.asarray([13, 15]))
    assert np.argsort(-scores[3:]).tolist()[:4] == [3, 5, 1, 4] and np.isfinite(scores[3:]).all()
    assert scores[3] == scores[5] < 0 and scores[4] == np.float32(0.2)
    scores = score("confidence", canvas, seen, None)
    defer(scores, seen, np.arange(13, 19))
    assert scores[3:].tolist() == seen.confidence.tolist(), "where all are such, there is nothing to wait for"
    scores = score("random", canvas, None, None, np.full(6, -1e30, np.float32))
    defer(scores, seen, np.asarray([14]))
    assert scores[4] < scores[3] and np.isfinite(scores[4])


def test_certainties_of_many_canvases_are_those_of_each_alone():
    """Bit for bit: where two positions are equally sure, the rounding decides which comes first."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        length, sigma = int(rng.integers(1, 300)), float(rng.choice([0.5, 3.0, 10.0]))
        canvases = [new_canvas(length) for _ in range(int(rng.integers(1, 70)))]
        for canvas in canvases:
            unmask(canvas, np.flatnonzero(rng.random(length) < rng.random()))
        other = new_canvas(length + 1)
        *wanted, last = response_certainties([*canvases, other], [sigma] * (len(canvases) + 1))
        alone = [response_certainty(canvas, sigma) for canvas in canvases]
        for got, want in zip(wanted, alone, strict=True):
            assert got.tobytes() == want.tobytes()
        assert len(last) == length + 1
