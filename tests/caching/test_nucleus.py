"""d2's second stage: the shares of many lines' attention rollouts, at once."""

import numpy as np
import pytest
import torch

from vllm_dllm.caching.nucleus import nuclei


def stated(scores: np.ndarray, p: float, allowed: np.ndarray) -> list[int]:
    """The public code's own statement of one, in PyTorch."""
    values = torch.from_numpy(np.where(allowed, scores, np.float32(0)))
    shares = (values / (values.sum() + 1e-9)).sort(descending=True)
    take = shares.values.cumsum(0) <= p
    take[0] = True
    return sorted(i for i in shares.indices[take].tolist() if allowed[i])


@pytest.mark.parametrize("seed", range(10))
def test_each_lines_share_is_the_public_codes(seed):
    """Lines of all lengths, with scores that are often equal, of which nothing or everything is allowed."""
    rng = np.random.default_rng(seed)
    for _ in range(60):
        lines = []
        for kind in rng.integers(0, 4, int(rng.integers(1, 9))):
            scores = rng.random(int(rng.integers(1, 300))).astype(np.float32)
            scores = [scores, np.round(scores, 1), scores**8, np.full_like(scores, scores[0])][kind]
            share = float(rng.choice([0, 0.1, 0.4, 0.99, 1, rng.random()]))
            lines.append((scores, share, rng.random(len(scores)) < rng.choice([0, 1, rng.random()])))
        found = nuclei(*zip(*lines, strict=True))
        assert [sorted(places.tolist()) for places in found] == [stated(*line) for line in lines]
