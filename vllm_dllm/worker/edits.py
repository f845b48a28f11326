"""What requests have done to their logits before anything is read of them."""

from collections.abc import Mapping

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from vllm_dllm.messages import Adjustment, Admitted, Edits

AT_ONCE = 64  # lines of a whole vocabulary that are barred at once
Tables = Mapping[str, torch.Tensor]  # by key: int32 [vocabulary], the class of each token
NO_TABLES: Tables = {}


def apply(
    logits: torch.Tensor,
    first_line: int,
    read_starts: np.ndarray,
    edits: Mapping[int, Edits],
    tables: Tables = NO_TABLES,
) -> None:
    """Edit a piece of a step's logits in place: those of the lines from `first_line` on, of all requests' N.

    Request i has lines read_starts[i] to read_starts[i + 1].
    """
    stop_line = first_line + len(logits)
    for i, edit in edits.items():
        start, stop = int(read_starts[i]), int(read_starts[i + 1])
        low, high = max(start, first_line), min(stop, stop_line)
        if low < high:
            edit_lines(logits[low - first_line : high - first_line], low - start, edit, tables)


def edit_lines(logits: torch.Tensor, skip: int, edit: Edits, tables: Tables) -> None:
    """Edit some of one request's lines in place, those from its line `skip` on."""
    for adjustment in edit.adjusted:
        _adjust(logits, adjustment)
    if edit.allowed is not None:
        allowed = _there(edit.allowed, logits)
        kept = logits[:, allowed]
        logits.fill_(-torch.inf)
        logits[:, allowed] = kept
    if edit.banned:
        logits.index_fill_(1, _there(np.concatenate(edit.banned), logits), -torch.inf)
    for lines, tokens in edit.barred:
        _bar(logits, lines - skip, tokens)
    if edit.admitted is not None:
        _admit(logits, -skip, edit.admitted, tables[edit.admitted.key])


def _adjust(logits: torch.Tensor, adjustment: Adjustment) -> None:
    tokens = _there(adjustment.tokens, logits)
    values = logits[:, tokens].float()
    if adjustment.scale is not None:
        scale = async_tensor_h2d(adjustment.scale, logits.device)
        values = torch.where(values > 0, values / scale, values * scale)
    logits[:, tokens] = (values + async_tensor_h2d(adjustment.shift, logits.device)).to(logits.dtype)


def _bar(logits: torch.Tensor, lines: np.ndarray, tokens: np.ndarray) -> None:
    here = (lines >= 0) & (lines < len(logits))
    if np.count_nonzero(here):
        at = np.stack([lines[here], tokens[here]]).astype(np.int64)
        where = async_tensor_h2d(at, logits.device)
        logits[where[0], where[1]] = -torch.inf


def _admit(logits: torch.Tensor, offset: int, admitted: Admitted, table: torch.Tensor) -> None:
    """Bar all tokens but those of the admitted classes; a request's line l is `logits[l + offset]`."""
    lines = admitted.lines + offset
    here = (lines >= 0) & (lines < len(logits))
    if not np.count_nonzero(here):
        return
    rows = async_tensor_h2d(admitted.rows, logits.device)
    where = async_tensor_h2d(np.stack([lines[here], admitted.which[here]]).astype(np.int64), logits.device)
    for low in range(0, where.shape[1], AT_ONCE):
        at, which = where[:, low : low + AT_ONCE]
        barred = ~rows.index_select(0, which).index_select(1, table)
        logits[at] = logits[at].masked_fill_(barred, -torch.inf)


def _there(tokens: np.ndarray, logits: torch.Tensor) -> torch.Tensor:
    return async_tensor_h2d(tokens.astype(np.int64), logits.device)
