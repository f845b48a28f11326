"""What many requests' rules select, at once: the same as one after the other, at a fraction of the host's time."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.unmasking.base import UnmaskingRule, as_torch_ranks, ranked_part

Asked = tuple[UnmaskingRule, Canvas, np.ndarray]  # a rule that ranks, and float32 scores of the canvas's candidates


def select_together(asked: Sequence[Asked]) -> list[np.ndarray]:
    """The canvas positions that each of the rules selects, ascending.

        scores   .3 .9 .5       ranked   .9 .5 .3 ..     numbers   1     at least   .9     selected   0 1 0
                 .7 .2 .6 .4             .7 .6 .4 .2               3                .4                1 0 1 1

    Where the score that is just selected is there once more, which of the two it is hangs on how `top` ranks.
    """
    sizes = np.asarray([len(scores) for _, _, scores in asked])
    inside = np.arange(sizes.max() + 1) < sizes[:, None]
    table = np.full(inside.shape, -np.inf, np.float32)
    table[inside] = np.concatenate([scores for _, _, scores in asked])
    ranked = -np.sort(-table, axis=1)
    numbers = np.asarray([rule.number(c, row[: len(s)]) for (rule, c, s), row in zip(asked, ranked, strict=True)])
    lines = np.arange(len(asked))
    least = np.where(numbers > 0, ranked[lines, numbers - 1], np.inf)
    selected = (table >= least[:, None]) & inside
    positions = np.concatenate([canvas.candidates for _, canvas, _ in asked])[selected[inside]]
    stops = np.cumsum(np.count_nonzero(selected, axis=1)).tolist()
    found = [positions[start:stop] for start, stop in pairwise([0, *stops])]
    tied = (ranked[lines, numbers] == least).nonzero()[0].tolist()
    for i, chosen in zip(tied, _tied([asked[i] for i in tied], numbers[tied].tolist()), strict=True):
        found[i] = chosen
    return found


def _tied(asked: Sequence[Asked], numbers: Sequence[int]) -> list[np.ndarray]:
    """The same one after the other, for those where it hangs on how `top` ranks; alike ones are ranked at once."""
    parts = [ranked_part(canvas, rule.part) for rule, canvas, _ in asked]
    alike: dict[tuple[int, int], list[int]] = {}
    for i, (start, stop) in enumerate(parts):
        alike.setdefault((stop - start, numbers[i]), []).append(i)
    found = [np.empty(0, np.int64)] * len(asked)
    for (length, number), group in alike.items():
        table = np.full((len(group), length), -np.inf, np.float32)
        for line, i in zip(table, group, strict=True):
            _, canvas, scores = asked[i]
            line[canvas.candidates - parts[i][0]] = scores
        for i, chosen in zip(group, np.sort(as_torch_ranks(table, number), axis=1), strict=True):
            found[i] = chosen + parts[i][0]
    return found
