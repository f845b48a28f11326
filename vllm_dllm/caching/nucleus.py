"""The smallest set of scores that holds a share of them all, for many lines at once. Source: Kamichanw/d2Cache."""

from collections.abc import Sequence

import numpy as np
import torch


def nuclei(scores: Sequence[np.ndarray], p: Sequence[float], allowed: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of each line the places of the largest of the `allowed` scores while their share's running sum is at most `p`; at
    least one, if it is allowed. Lines may be of different lengths.

    Sums and quotients are the source's, in float32 and in its order. Where the last one's score is there once more,
    which of the two it is hangs on how torch.sort ranks.
    """
    sizes = [len(line) for line in scores]
    inside = np.arange(max(sizes) + 1) < np.asarray(sizes)[:, None]
    table = np.zeros(inside.shape, np.float32)
    table[inside] = np.concatenate([np.where(a, s, np.float32(0)) for s, a in zip(scores, allowed, strict=True)])
    totals = [torch.from_numpy(line[:size]).sum().item() for line, size in zip(table, sizes, strict=True)]
    table /= (np.asarray(totals, np.float32) + np.float32(1e-9))[:, None]
    order = np.where(inside, -table, np.inf).argsort(axis=1)
    ranked = np.take_along_axis(table, order, 1)
    sums = ranked.cumsum(axis=1, dtype=np.float64).astype(np.float32)
    within = (sums <= np.asarray(p, np.float32)[:, None]) & inside
    numbers = np.maximum(1, np.count_nonzero(within, axis=1))
    lines = np.arange(len(sizes))
    tied = (ranked[lines, numbers - 1] == ranked[lines, numbers]) & (numbers < sizes)
    found = []
    for i, (number, size) in enumerate(zip(numbers.tolist(), sizes, strict=True)):
        best = order[i, :number]
        if tied[i]:
            best = torch.from_numpy(table[i, :size]).sort(descending=True).indices.numpy()[:number]
        found.append(best[allowed[i][best]])
    return found
