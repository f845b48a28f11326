"""d2's second stage: the nuclei of many lines are those of each alone."""

import numpy as np
import pytest
import torch

from vllm_dllm.caching.nucleus import nuclei


def nucleus(scores: np.ndarray, p: float, allowed: np.ndarray) -> list[int]:
    """A plain statement of one: sorted, summed up, cut."""
    shares = torch.from_numpy(np.where(allowed, scores, 0).astype(np.float32))
    shares = shares / (shares.sum() + 1e-9)
    ranked, order = shares.sort(descending=True)
    sums = torch.from_numpy(np.cumsum(ranked.numpy(), dtype=np.float64).astype(np.float32))
    number = max(1, int((sums <= p).sum()))
    return sorted(i for i in order[:number].tolist() if allowed[i])


@pytest.mark.parametrize("seed", range(60))
def test_nuclei_of_lines_of_all_lengths(seed):
    """Scores that are often equal, lines of which nothing or everything is allowed, shares from none to nearly all."""
    rng = np.random.default_rng(seed)
    scores, shares, allowed = [], [], []
    for _ in range(int(rng.integers(1, 12))):
        length = int(rng.integers(1, 600))
        line = rng.random(length, np.float32) ** int(rng.integers(1, 6))
        scores.append(np.round(line, int(rng.integers(1, 3))) if rng.random() < 0.4 else line)
        allowed.append(rng.random(length) < rng.choice([0, 0.3, 0.9, 1]))
        shares.append(float(rng.choice([0, 0.1, 0.4, 0.9, 0.99])))
    found = [sorted(places.tolist()) for places in nuclei(scores, shares, allowed)]
    assert found == [nucleus(*one) for one in zip(scores, shares, allowed, strict=True)]
