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
    tied = ranked[lines, numbers] == last
    if tied.any():
        theirs = inside & tied[:, None]
        members = [asked[i] for i in tied.nonzero()[0].tolist()]
        selected[theirs] = _tied(members, numbers[tied], -table[theirs])
    places = selected.nonzero()[1]
    stops = np.count_nonzero(selected, axis=1).cumsum().tolist()
    return [places[start:stop] for start, stop in pairwise([0, *stops])]


def _tied(asked: Sequence[Asked], numbers: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Whether each of the candidates, one canvas's after the other's, is selected where that hangs on how `top` ranks.

    Those that rank as many positions, and select as many, are ranked at once.
    """
    starts, stops = np.asarray([ranked_part(canvas, rule.part) for rule, canvas, _ in asked]).T
    line = np.repeat(np.arange(len(asked)), [len(candidates) for _, _, candidates in asked])
    column = np.concatenate([canvas.candidates for _, canvas, _ in asked]) - starts[line]
    lengths = stops - starts
    selected = np.empty(len(scores), bool)
    for length, number in set(zip(lengths.tolist(), numbers.tolist(), strict=True)):
        alike = (lengths == length) & (numbers == number)
        mine = alike[line]
        at = (alike.cumsum() - 1)[line[mine]], column[mine]
        table = np.full((np.count_nonzero(alike), length), -np.inf, np.float32)
        table[at] = scores[mine]
        chosen = np.zeros(table.shape, bool)
        np.put_along_axis(chosen, as_torch_ranks(table, number), True, 1)
        selected[mine] = chosen[at]
    return selected
