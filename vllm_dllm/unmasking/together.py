"""What many requests' rules select, at once: the same as one after the other, at a fraction of the host's time."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.unmasking.base import UnmaskingRule, as_torch_ranks, ranked_part

Asked = tuple[UnmaskingRule, Canvas, np.ndarray]  # a rule that ranks, and float32 scores of the canvas's candidates


def select_together(asked: Sequence[Asked]) -> list[np.ndarray]:
    """Which of its canvas's candidates each of the rules selects: their places, ascending.

        scores   .3 .9 .5       ranked   .9 .5 .3 ..     numbers   1     at least   .9     selected   0 1 0
                 .7 .2 .6 .4             .7 .6 .4 .2               3                .4                1 0 1 1

    Where the score that is just selected is there once more, which of the two it is hangs on how `top` ranks.
    """
    sizes = [len(scores) for _, _, scores in asked]
    inside = np.arange(max(sizes) + 1) < np.asarray(sizes)[:, None]
    table = np.full(inside.shape, np.inf, np.float32)  # what is behind a line's end is the worst: the table has -score
    table[inside] = -np.concatenate([scores for _, _, scores in asked])
    ranked = np.sort(table, axis=1)
    descending = -ranked
    numbers = np.asarray(
        [rule.number(c, line[:n]) for (rule, c, _), line, n in zip(asked, descending, sizes, strict=True)]
    )
    lines = np.arange(len(asked))
    last = np.where(numbers > 0, ranked[lines, numbers - 1], -np.inf)
    selected = (table <= last[:, None]) & inside
    places = selected.nonzero()[1]
    stops = np.count_nonzero(selected, axis=1).cumsum().tolist()
    found = [places[start:stop] for start, stop in pairwise([0, *stops])]
    tied = (ranked[lines, numbers] == last).nonzero()[0].tolist()
    if tied:
        for i, chosen in zip(tied, _tied([asked[i] for i in tied], numbers[tied].tolist()), strict=True):
            found[i] = chosen
    return found


def _tied(asked: Sequence[Asked], numbers: Sequence[int]) -> list[np.ndarray]:
    """The same for those where it hangs on how `top` ranks; alike ones are ranked at once."""
    parts = [ranked_part(canvas, rule.part) for rule, canvas, _ in asked]
    alike: dict[tuple[int, int], list[int]] = {}
    for i, (start, stop) in enumerate(parts):
        alike.setdefault((stop - start, numbers[i]), []).append(i)
    found = [np.empty(0, np.int64)] * len(asked)
    for (length, number), group in alike.items():
        members = [asked[i] for i in group]
        line = np.repeat(np.arange(len(group)), [len(scores) for _, _, scores in members])
        column = np.concatenate([asked[i][1].candidates - parts[i][0] for i in group])
        table = np.full((len(group), length), -np.inf, np.float32)
        table[line, column] = np.concatenate([scores for _, _, scores in members])
        chosen = np.zeros(table.shape, bool)
        np.put_along_axis(chosen, as_torch_ranks(table, number), True, 1)
        counts = np.cumsum([0, *(len(scores) for _, _, scores in members)]).tolist()
        flags = chosen[line, column]
        for i, (start, stop) in zip(group, pairwise(counts), strict=True):
            found[i] = flags[start:stop].nonzero()[0]
    return found
