"""Constraints: what they do to logits, and which of a pass's tokens they let through."""

import numpy as np
import torch

from vllm_dllm.canvas import Canvas
from vllm_dllm.causal_blocks import CausalBlocks
from vllm_dllm.constraints import Constraint, admitted
from vllm_dllm.constraints.bad_words import BadWords
from vllm_dllm.constraints.ends import NoEndBeforeGiven
from vllm_dllm.constraints.penalties import Penalties
from vllm_dllm.frontier import Blocks
from vllm_dllm.messages import Edits, Readout
from vllm_dllm.worker.edits import apply
from vllm_dllm.worker.readout import Reader

MASK = 1
EDGES = np.asarray([0, 2, 5, 6])


def edits(*barred: tuple[list[int], list[int]]) -> Edits:
    return Edits(barred=[(np.asarray(lines), np.asarray(tokens)) for lines, tokens in barred])


def test_bars_are_of_a_request_s_own_lines_whatever_the_pieces():
    """Requests of 2, 3 and 1 lines; the second and the third bar tokens."""
    asked = {1: edits(([0, 2, 2], [3, 4, 5])), 2: edits(([0], [7]))}
    want = torch.zeros(6, 9)
    want[2, 3] = want[4, 4] = want[4, 5] = want[5, 7] = -torch.inf
    for size in range(1, 7):
        logits = torch.zeros(6, 9)
        for start in range(0, 6, size):
            apply(logits[start : start + size], start, EDGES, asked)
        assert torch.equal(logits, want)


def test_all_that_is_read_is_of_what_remains():
    logits = torch.randn(6, 9, generator=torch.manual_seed(0))
    barred = logits.clone()
    best = int(logits[3].argmax())
    barred[3, best] = -torch.inf
    readouts = [Readout(margin=True, entropy=True)] * 3
    reader = Reader("gumbel", MASK)
    want = reader.read(barred.clone().__getitem__, EDGES, readouts)
    seen = reader.read(logits.clone().__getitem__, EDGES, readouts, {1: edits(([1], [best]))})
    for name in ("tokens", "confidence", "margin", "entropy"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(want, name))


def test_no_end_token_in_front_of_given_text():
    """Canvas: prompt of 2, response m m G m m, no suffix."""
    canvas = Canvas([7, 7], 5, MASK, Blocks(5), given={4: 9})
    found = Edits()
    NoEndBeforeGiven([3, 2]).edit(canvas, np.asarray([2, 3, 5, 6]), found)
    (lines, tokens), *more = found.barred
    assert not more and list(zip(lines.tolist(), tokens.tolist(), strict=True)) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_what_overflows_the_response_is_none_of_it():
    """Canvas: prompt of 3, response 5 m, overflow m 6 m: no word ends there, and no token there is known or of the prompt."""
    canvas = Canvas([7, 7, 8], 2, MASK, CausalBlocks(4, commits=False), overflow=3)
    canvas.unmask(np.asarray([3]), np.asarray([5]))
    canvas.unmask(np.asarray([6]), np.asarray([6]))
    words, reads = BadWords([[9, 4], [5, 9]]), np.asarray([4, 5, 7])
    assert words.admits(canvas, 4, 4) and not words.admits(canvas, 4, 9)
    words.fix(canvas, 4, 9)
    assert words.admits(canvas, 5, 4), "a word that reaches beyond the response"
    found = Edits()
    words.edit(canvas, reads, found)
    assert [(lines.tolist(), tokens.tolist()) for lines, tokens in found.barred] == [([0], [9])]
    found = Edits()
    Penalties(repetition=2.0, presence=1.0).edit(canvas, reads, found)
    (adjusted,) = found.adjusted
    assert adjusted.tokens.tolist() == [5, 7, 8] and adjusted.shift.tolist() == [-1, 0, 0]


class Different(Constraint):
    """No token twice."""

    def __init__(self):
        self.seen: set[int] = set()

    def edit(self, canvas, reads, edits):
        pass

    def admits(self, canvas, position, token):
        return token not in self.seen

    def fix(self, canvas, position, token):
        self.seen.add(token)


def test_tokens_are_fixed_in_turn_given_those_just_fixed():
    kept = admitted([Different()], Canvas([7], 4, MASK, Blocks(4)), np.asarray([3, 1, 2]), np.asarray([5, 5, 6]))
    assert kept.tolist() == [True, False, True]
