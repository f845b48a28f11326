"""What many requests' rules select, at once: the same as one after the other, at a fraction of the host's time."""

from collections.abc import Sequence

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.unmasking.base import UnmaskingRule, top

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
    places = selected.nonzero()[1]
    stops = np.cumsum(np.count_nonzero(selected, axis=1)).tolist()
    tied = ranked[lines, numbers] == least
    found, start = [], 0
    for (rule, canvas, scores), stop, tie, number in zip(asked, stops, tied.tolist(), numbers.tolist(), strict=True):
        if tie:
            everywhere = np.full(canvas.length, -np.inf, np.float32)
            everywhere[canvas.candidates] = scores
            found.append(np.sort(top(canvas, everywhere, number, rule.whole)))
        else:
            found.append(canvas.candidates[places[start:stop]])
        start = stop
    return found
