"""How SDAR's and LLaDA2's public code decode, over a plain model (block_causal.py): greedy, one request at a time.

Every pass computes the canvas up to the active block's end, whatever the public code keeps of it: finished blocks never
change, so that keys and values that were stored for them are the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from block_causal import BlockCausal
from common import EOS, MASK


@dataclass
class Decoded:
    """What golden files show: all response tokens to the last decoded block's end, response positions as they were
    unmasked in each denoising pass, and the positions that each pass computed."""

    response: list[int]
    unmasked: list[list[int]] = field(default_factory=list)
    query_tokens: list[int] = field(default_factory=list)


class Canvas:
    """A prompt, and masks up to the block boundary behind `gen_length` positions.

    `given`: tokens that are there from the start, by their places in the response; no EOS stands in front of one. That is
    this package's own: the public codes know no such thing.
    """

    def __init__(
        self,
        model: BlockCausal,
        prompt_ids: Sequence[int],
        gen_length: int,
        block_length: int,
        given: Mapping[int, int] = MappingProxyType({}),
    ):
        self.model, self.prompt_len, self.block_length = model, len(prompt_ids), block_length
        self.length = -(-(self.prompt_len + gen_length) // block_length) * block_length
        self.tokens = torch.full((self.length,), MASK)
        self.tokens[: self.prompt_len] = torch.tensor(prompt_ids)
        self.masked = torch.arange(self.length) >= self.prompt_len
        for i, token in given.items():
            self.tokens[self.prompt_len + i] = token
            self.masked[self.prompt_len + i] = False
        self.last_given = self.prompt_len + max(given, default=-1)

    def response(self, end: int) -> list[int]:
        return self.tokens[self.prompt_len : end].tolist()

    def unmask(self, start: int, quota: int, threshold: float | None) -> list[int]:
        """One denoising pass of the block at `start`: the response positions that became tokens.

        Above the threshold, if they are `quota` at least; else, and without a threshold, the `quota` best.
        """
        stop = start + self.block_length
        logits = self.model.logits(self.tokens[:stop].tolist(), self.block_length)[start:].clone()
        if self.last_given >= self.prompt_len:
            logits[: max(0, self.last_given - start), EOS] = -torch.inf
        found = logits.softmax(-1).max(-1)
        scores = found.values.masked_fill(~self.masked[start:stop], -1)
        taken = (scores > threshold).nonzero()[:, 0] if threshold is not None else torch.empty(0)
        if threshold is None or len(taken) < quota:
            taken = scores.topk(min(quota, int(self.masked[start:stop].sum()))).indices
        self.tokens[start + taken] = found.indices[taken]
        self.masked[start + taken] = False
        return sorted((start + taken - self.prompt_len).tolist())


def quotas(block_length: int, steps: int) -> list[int]:
    """How many positions each pass of a block unmasks, at least."""
    base, extra = divmod(block_length, steps)
    return [base + (step < extra) for step in range(steps)]


def sdar(
    model: BlockCausal,
    prompt_ids: Sequence[int],
    gen_length: int,
    block_length: int,
    denoising_steps: int,
    threshold: float | None = None,
    stop: Collection[int] = (),
    given: Mapping[int, int] = MappingProxyType({}),
) -> Decoded:
    """Stored blocks, a pass over the prompt's whole ones first, and a commit pass over every one that is finished.

    Without a threshold it is the static form. It ends behind a block with a token of `stop` in the response.
    """
    canvas = Canvas(model, prompt_ids, gen_length, block_length, given)
    first = canvas.prompt_len // block_length * block_length
    decoded = Decoded([], query_tokens=[first] if first else [])
    for start in range(first, canvas.length, block_length):
        end = start + block_length
        for quota in quotas(block_length, denoising_steps):
            if not canvas.masked[start:end].any():
                break
            decoded.unmasked.append(canvas.unmask(start, quota, threshold))
            decoded.query_tokens.append(block_length)
        decoded.query_tokens.append(block_length)  # the commit pass
        decoded.response = canvas.response(end)
        if set(decoded.response) & set(stop):
            break
    return decoded


def llada2(
    model: BlockCausal,
    prompt_ids: Sequence[int],
    gen_length: int,
    block_length: int,
    steps: int,
    threshold: float,
    eos_early_stop: bool = False,
) -> Decoded:
    """Nothing is stored: every pass computes all to the active block's end.

    It ends behind a block with an EOS in the response; with `eos_early_stop` also with a pass that unmasks an EOS and leaves
    no mask in front of the first one (one that fills the last mask there, and unmasks no EOS itself, does not end it).
    """
    canvas = Canvas(model, prompt_ids, gen_length, block_length)
    first = canvas.prompt_len // block_length * block_length
    decoded = Decoded([])
    for start in range(first, canvas.length, block_length):
        end = start + block_length
        for quota in quotas(block_length, steps):
            if not canvas.masked[start:end].any():
                break
            decoded.unmasked.append(canvas.unmask(start, quota, threshold))
            decoded.query_tokens.append(end)
            decoded.response = canvas.response(end)
            if eos_early_stop and EOS in [decoded.response[i] for i in decoded.unmasked[-1]]:
                before = canvas.prompt_len + decoded.response.index(EOS)
                if not canvas.masked[canvas.prompt_len : before].any():
                    return decoded
        if EOS in decoded.response:
            break
    return decoded
