"""A pass: one partial forward of one request, as it was planned."""

from typing import NamedTuple

import numpy as np

from vllm_dllm.messages import Edits, Readout
from vllm_dllm.probes.base import Probe


class Pass(NamedTuple):
    """What one pass computes and reads. Made by `Decoding.plan`, taken by `Decoding.finish`; never changed."""

    number: int  # passes of the request that were finished before it
    queries: np.ndarray  # [T] canvas positions to compute, ascending
    token_ids: np.ndarray  # int32 [T] what stands there
    end: int  # how far the canvas exists, which is what the queries attend to
    reads: np.ndarray  # [N] canvas positions whose predictions are read, ascending
    rows: np.ndarray  # [N] the canvas rows where that is, among the queries
    readout: Readout
    edits: Edits | None  # None: the logits are read as they are
    probe: Probe | None  # what the policy wants measured in the attention
    stale_pages: int  # pages recomputed because they were marked stale
    clock: int  # the page ledger's, when the pass was planned: marks made later are not its
    second: "Pass | None" = None  # with guidance: the second canvas's part, with the same reads
    scale: float = 0.0  # of a second canvas's part: the guidance's
    block: int | None = None  # positions in a block, which sees itself and those before it; None: each sees all
    named: np.ndarray | None = None  # int32 [N]: tokens that are read whatever is most likely there

    @property
    def full(self) -> bool:
        """Whether it computes all of the canvas (of both) that exists."""
        return len(self.queries) == self.end and (self.second is None or self.second.full)

    @property
    def tokens(self) -> int:
        """The positions that enter the first layer."""
        return len(self.queries) + (0 if self.second is None else self.second.tokens)

    @property
    def most_tokens(self) -> int:
        """The positions that the pass may come to compute, for the step's token budget."""
        own = self.end if self.probe is not None and self.probe.widens else len(self.queries)
        return own + (0 if self.second is None else self.second.most_tokens)
