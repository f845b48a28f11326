"""Logits of guided requests: their own canvas's and the second one's, put together."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

AT_ONCE = 64  # lines of a whole vocabulary that are put together at once


class Guided(NamedTuple):
    """A request's lines [start, stop), its second canvas's from `second` on, and the guidance's scale."""

    start: int
    stop: int
    second: int
    scale: float


def guide(
    logits: torch.Tensor | None,
    start: int,
    stop: int,
    head: Callable[[slice], torch.Tensor | None],
    guided: Sequence[Guided],
) -> torch.Tensor | None:
    """The logits of the lines [start, stop), those of `guided` requests (ascending, as their second canvases' lines are)
    replaced: u + (scale + 1) (c - u), in float32. The head is asked once for all second canvases' lines."""
    parts = [(max(g.start, start), min(g.stop, stop), g) for g in guided if g.start < stop and g.stop > start]
    if not parts:
        return logits
    (low, _, first), (_, high, last) = parts[0], parts[-1]
    skip = first.second + low - first.start
    unconditional = head(slice(skip, last.second + high - last.start))
    if logits is None or unconditional is None:  # another rank than the first
        return None
    logits = logits.float()
    for low, high, g in parts:
        for line in range(low, high, AT_ONCE):
            end = min(line + AT_ONCE, high)
            other = g.second - g.start - skip
            u = unconditional[line + other : end + other].float()
            logits[line - start : end - start].sub_(u).mul_(g.scale + 1).add_(u)
    return logits
