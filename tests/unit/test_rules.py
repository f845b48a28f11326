"""The unmasking rules that hang on one pass's scores alone: threshold, tokens per step, factors, entropy bound."""

import numpy as np
import pytest
import torch
from decoding_helpers import full_scores, new_canvas, observe, select, unmask

from vllm_dllm.unmasking.base import top
from vllm_dllm.unmasking.dynamic_factor import DynamicFactor
from vllm_dllm.unmasking.entropy_bound import EntropyBound
from vllm_dllm.unmasking.factor import Factor
from vllm_dllm.unmasking.threshold import Threshold
from vllm_dllm.unmasking.together import select_together
from vllm_dllm.unmasking.tokens_per_step import TokensPerStep

# ---- threshold ----


def test_threshold():
    canvas = new_canvas(5)
    assert select(Threshold(0.9), canvas, [0.95, 0.2, 0.9, 0.89, 0.99]) == [0, 2, 4]
    assert select(Threshold(0.9), canvas, [0.1, 0.2, 0.85, 0.3, 0.4]) == [2], "none reaches it: the best"
    assert select(Threshold(0.0), canvas, [0.1, 0.2, 0.8, 0.3, 0.4]) == [0, 1, 2, 3, 4]
    assert select(Threshold(1.0), canvas, [0.1, 1.0, 0.8, 0.3, 1.0]) == [1, 4]


def test_threshold_compares_in_float32():
    """As the public code does: a confidence of float32(0.9) reaches 0.9, though it is larger than 0.9."""
    canvas = new_canvas(2)
    below = np.nextafter(np.float32(0.9), np.float32(0))
    assert select(Threshold(0.9), canvas, [below, np.float32(0.9)]) == [1]


def test_rules_stay_in_the_active_block():
    canvas = new_canvas(6, block_length=3)
    unmask(canvas, [0, 1, 2])
    for rule in (Threshold(0.5), TokensPerStep(9), Factor(100.0), DynamicFactor(0.0), EntropyBound(100.0)):
        chosen = select(rule, canvas, [0.9, 0.95, 0.99], entropy=[0.1, 0.1, 0.1])
        assert chosen and set(chosen) <= {3, 4, 5}


# ---- tokens per step ----


def test_tokens_per_step():
    canvas = new_canvas(5)
    assert select(TokensPerStep(2), canvas, [0.5, 0.9, 0.1, 0.7, 0.6]) == [1, 3]
    assert select(TokensPerStep(9), canvas, [0.5, 0.9, 0.1, 0.7, 0.6]) == [0, 1, 2, 3, 4]
    unmask(canvas, [1, 3])
    assert select(TokensPerStep(2), canvas, [0.5, 0.1, 0.6]) == [0, 4]


# ---- factor ----


def test_factor():
    canvas = new_canvas(4)
    # (n+1)(1-c_n): 2*.05 = .1, 3*.1 = .3, 4*.3 = 1.2, ...
    assert select(Factor(1.0), canvas, [0.7, 0.95, 0.2, 0.9]) == [1, 3]
    assert select(Factor(0.2), canvas, [0.7, 0.95, 0.2, 0.9]) == [1]
    assert select(Factor(0.0), canvas, [0.7, 0.95, 0.2, 0.9]) == [1], "at least one"


def test_factor_leaves_the_last_where_all_are_within():
    """The public code's quirk, named in the rule: golden files have it."""
    canvas = new_canvas(3)
    assert select(Factor(1.0), canvas, [0.99, 0.98, 0.97]) == [0, 1]
    unmask(canvas, [0, 1])
    assert select(Factor(1.0), canvas, [0.99]) == [2]


@pytest.mark.parametrize("seed", range(100))
def test_factor_by_its_statement(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    factor = float(rng.choice([0.3, 1.0, 2.0]))
    confidence = (1 - rng.random(n) ** rng.integers(1, 6)).astype(np.float32)
    best = np.sort(confidence)[::-1]
    within = [k for k in range(1, n + 1) if (k + 1) * (1 - best[k - 1]) < np.float32(factor)]
    count = max(within, default=1)
    if count == n > 1:
        count -= 1
    chosen = select(Factor(factor), new_canvas(n), confidence)
    assert len(chosen) == count
    assert sorted(confidence[chosen], reverse=True) == best[:count].tolist()


# ---- dynamic factor ----


def stated(confidence: np.ndarray, later: int, factor: float) -> int:
    """How many are unmasked of `confidence`, with so many masked positions in later blocks: the public code's loop."""
    best = sorted(confidence.tolist(), reverse=True) + [-np.inf] * later
    thresholds = [-1.0] + [1 - factor / (n + 1) for n in range(2, len(best) + 1)]
    for count in range(len(best)):  # noqa: B007 (where none is below its threshold, the last number counts)
        if best[count] < thresholds[count]:
            break
    return count + (count in (0, len(best) - 1))


@pytest.mark.parametrize("seed", range(100))
def test_dynamic_factor_by_the_public_code_s_loop(seed):
    rng = np.random.default_rng(seed)
    here, blocks = int(rng.integers(1, 20)), int(rng.integers(1, 4))
    factor = float(rng.choice([0.0, 0.3, 1.0, 2.0]))
    confidence = (1 - rng.random(here) ** rng.integers(1, 6)).astype(np.float32)
    chosen = select(DynamicFactor(factor), new_canvas(here * blocks, here), confidence)
    # one position of a later block is no candidate, though the public code would take it where it is alone there
    count = min(here, stated(confidence, here * (blocks - 1), factor))
    assert sorted(confidence[chosen], reverse=True) == sorted(confidence, reverse=True)[:count]


def test_dynamic_factor_takes_the_last_where_it_fails_alone():
    """A quirk of the public code, named in the rule."""
    canvas = new_canvas(3)
    assert select(DynamicFactor(0.5), canvas, [0.99, 0.98, 0.1]) == [0, 1, 2]
    assert select(DynamicFactor(0.5), canvas, [0.99, 0.2, 0.1]) == [0]
    assert select(DynamicFactor(0.5), new_canvas(6, 3), [0.99, 0.98, 0.1]) == [0, 1]


# ---- entropy bound ----


def test_entropy_bound():
    canvas = new_canvas(4)
    # by confidence: 2, 0, 3, 1; sum - max: 0, .1, .3, .8
    confidence, entropy = [0.9, 0.3, 0.95, 0.6], [0.2, 0.9, 0.1, 0.5]
    assert select(EntropyBound(0.15), canvas, confidence, entropy) == [0, 2]
    assert select(EntropyBound(0.35), canvas, confidence, entropy) == [0, 2, 3]
    assert select(EntropyBound(0.9), canvas, confidence, entropy) == [0, 1, 2, 3]
    assert select(EntropyBound(0.0), canvas, confidence, entropy) == [2], "at least one"


@pytest.mark.parametrize("seed", range(100))
def test_entropy_bound_by_its_statement(seed):
    rng = np.random.default_rng(seed)
    n, gamma = int(rng.integers(1, 30)), float(rng.random())
    confidence, entropy = rng.random(n).astype(np.float32), (rng.random(n) ** 4).astype(np.float32)
    order = sorted(range(n), key=lambda i: -confidence[i])
    count = 1
    for k in range(1, n + 1):
        part = [float(entropy[i]) for i in order[:k]]
        if sum(part) - max(part) > gamma:
            break
        count = k
    assert select(EntropyBound(gamma), new_canvas(n), confidence, entropy) == sorted(order[:count])


# ---- ranking ----


@pytest.mark.parametrize("seed", range(20))
def test_top_takes_the_largest(seed):
    rng = np.random.default_rng(seed)
    canvas = new_canvas(50, prompt_len=7)
    scores = full_scores(canvas, rng.random(50))
    n = int(rng.integers(0, 51))
    for whole in (False, True):
        chosen = top(canvas, scores, n, "canvas" if whole else "response")
        assert len(set(chosen.tolist())) == n and (chosen >= 7).all()
        assert set(chosen.tolist()) == set(np.argsort(-scores)[:n].tolist())


def test_every_rule_unmasks_something_in_every_pass():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for rule in (Threshold(0.99), TokensPerStep(3), Factor(0.1), EntropyBound(0.01)):
            canvas = new_canvas(20, block_length=6)
            while not canvas.done:
                n = len(canvas.candidates)
                seen = observe(canvas, rng.random(n), rng.random(n) * 3)
                chosen = rule.select(canvas, full_scores(canvas, seen.confidence), seen, None)
                assert len(chosen) and set(chosen.tolist()) <= set(canvas.candidates.tolist())
                unmask(canvas, chosen - canvas.prompt_len)


@pytest.mark.parametrize("seed", range(40))
def test_rules_that_are_asked_together_select_what_each_selects_alone(seed):
    """Canvases of all sizes, some of them partly decoded; scores that are often equal."""
    rng = np.random.default_rng(seed)
    asked, want = [], []
    for _ in range(int(rng.integers(1, 20))):
        rule = [Threshold(0.7), Threshold(0.0), TokensPerStep(int(rng.integers(1, 9))), Factor(0.6)][rng.integers(4)]
        canvas = new_canvas(int(rng.integers(1, 60)), int(rng.integers(1, 40)), int(rng.integers(1, 9)))
        if len(canvas.candidates) > 2:
            unmask(canvas, rng.choice(canvas.candidates - canvas.prompt_len, 2, replace=False))
        confidence = rng.random(len(canvas.candidates)).astype(np.float32)
        if rng.random() < 0.5:
            confidence = np.round(confidence, 1)
        asked.append((rule, canvas, confidence))
        want.append(select(rule, canvas, confidence))
    got = [
        canvas.candidates[places] - canvas.prompt_len
        for places, (_, canvas, _) in zip(select_together(asked), asked, strict=True)
    ]
    assert [chosen.tolist() for chosen in got] == want


def test_top_lets_equal_scores_fall_as_torch_does():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        canvas = new_canvas(int(rng.integers(1, 90)), prompt_len=7)
        scores = full_scores(canvas, np.round(rng.random(canvas.gen_length), int(rng.integers(1, 4))))
        n = int(rng.integers(0, canvas.gen_length + 1))
        for part, start in (("response", 7), ("canvas", 0)):
            want = torch.topk(torch.from_numpy(scores[start:]), n).indices.numpy() + start
            assert top(canvas, scores, n, part).tolist() == want.tolist()
