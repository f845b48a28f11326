"""What a request's passes did, for whoever reads it: the trace, and the record that goes out with an answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PassRecord:
    """One pass. Made only for a request whose record somebody reads."""

    query_tokens: int  # positions that entered the first layer
    full: bool  # whether they were the whole canvas
    unmasked: list[int]  # response positions unmasked, those of its overflow too
    stale_pages: int  # pages recomputed because they were marked stale
    queries: np.ndarray  # the canvas positions that were to be computed, ascending
    end: int  # how far the canvas existed
    signals: dict[str, Any] = field(default_factory=dict)  # what the policy shows of the pass

    def columns(self) -> dict[str, Any]:
        """By the names that the trace has for them."""
        own = {k: getattr(self, k) for k in ("query_tokens", "full", "unmasked", "stale_pages")}
        return own | self.signals


def ranges(positions: np.ndarray) -> list[list[int]]:
    """Ascending positions as [start, stop) of what lies without a gap."""
    cuts = np.flatnonzero(np.diff(positions) != 1) + 1
    return [[int(part[0]), int(part[-1]) + 1] for part in np.split(positions, cuts) if len(part)]


def replay(record: Mapping[str, Any]) -> Iterator[list[int]]:
    """The canvases of a record (`dllm_record` of an answer), one by one: token ids, with the mask token where masked.

    The k-th is what pass k computed, so that `zip(replay(record), record["unmasked"])` has with each canvas the response
    positions that were decided on it; behind the last pass comes what it left. A canvas is prompt, response (with its
    overflow) and suffix as far as it existed (`record["end"]`).
    """
    canvas = np.asarray([*record["prompt_ids"], *record["output_ids"], *record["suffix_ids"]], np.int64)
    response = canvas[len(record["prompt_ids"]) : len(canvas) - len(record["suffix_ids"])]
    unmasked_in = np.asarray(record["unmasked_in"], np.int64)
    tokens = response.copy()
    response[unmasked_in >= 0] = record["mask_id"]
    ends: Sequence[int] = record["end"]
    for number, end in enumerate(ends):
        yield canvas[:end].tolist()
        done = unmasked_in == number
        response[done] = tokens[done]
    yield canvas[: ends[-1] if ends else len(canvas)].tolist()
