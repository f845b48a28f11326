"""What requests have done to their logits before anything is read of them."""

from collections.abc import Mapping

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from vllm_dllm.messages import Edits


def apply(logits: torch.Tensor, first_line: int, read_starts: np.ndarray, edits: Mapping[int, Edits]) -> None:
    """Edit a piece of a step's logits in place: those of the lines from `first_line` on, of all requests' N.

    Request i has lines read_starts[i] to read_starts[i + 1].
    """
    stop_line = first_line + len(logits)
    for i, edit in edits.items():
        start, stop = int(read_starts[i]), int(read_starts[i + 1])
        if start < stop_line and stop > first_line:
            for lines, tokens in edit.barred:
                _bar(logits, lines + (start - first_line), tokens)


def _bar(logits: torch.Tensor, lines: np.ndarray, tokens: np.ndarray) -> None:
    here = (lines >= 0) & (lines < len(logits))
    if np.count_nonzero(here):
        at = np.stack([lines[here], tokens[here]]).astype(np.int64)
        where = async_tensor_h2d(at, logits.device)
        logits[where[0], where[1]] = -torch.inf
