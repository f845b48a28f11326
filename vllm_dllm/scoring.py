"""One request's scoring: how likely a target is behind its prompt, one masked canvas after the other.

    passes.pass_of(n) --> Pass: the whole canvas --> (the worker) --> log probabilities of the target's own tokens

A request that scores stands beside others that decode (decoding.py), and is asked the same by the scheduler. Nothing
is unmasked, and no key outlives its pass, but where attention is causal by blocks:

    | t t t t | t t m m | m m m m | m         every position sees all: computed whole; the first mask is read
      kept      computed   not there          by blocks: a block is kept once all of its tokens have been there,
                                              the first ones from the start if another request's pages have them
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vllm_dllm.caching.block import BlockCache
from vllm_dllm.causal_blocks import whole_blocks
from vllm_dllm.decoding import Finished, NotFinite
from vllm_dllm.likelihood.passes import Passes
from vllm_dllm.messages import Observation, Readout
from vllm_dllm.passes import Pass
from vllm_dllm.records import PassRecord
from vllm_dllm.settings import ModelTraits

NOTHING = np.empty(0, np.int64)


class Scoring:
    """The passes over one target, each of which reads some of its tokens."""

    ranks = False  # there is no rule to ask
    oldest_mark = -1  # nor a page that could go stale: all is recomputed in each pass
    postponed = 0
    marks: dict[str, int] = {}
    logprobs = None  # of generated tokens
    sent = 0

    def __init__(
        self,
        prompt_ids: Sequence[int],
        target_ids: Sequence[int],
        passes: Passes,
        traits: ModelTraits,
        cfg_scale: float = 0.0,
        top: int | None = None,
        recorded: bool = False,
        block: int | None = None,
        computed: int = 0,
    ):
        """`cfg_scale`: guidance by a second canvas whose prompt is masked; 0: none. `top`: what each pass reads is kept
        whole, with so many of the most likely tokens beside each of the target's (-1: all). `block`: where attention is
        causal by blocks, the positions in one; then `passes` are a chain's. `computed`: positions at the prompt's start whose
        keys and values are in the pages already."""
        self.mask_id, self.row_shift = traits.mask_id, traits.row_shift
        self.tokens = np.asarray([*prompt_ids, *target_ids], np.int32)
        self.start = len(prompt_ids)
        self.block = block
        if block is not None:  # with masks up to the last block's end
            more = whole_blocks(len(self.tokens), block) - len(self.tokens)
            self.tokens = np.append(self.tokens, np.full(more, traits.mask_id, np.int32))
        self.target = np.asarray(target_ids, np.int32)
        self.kept = computed  # positions before this one were computed as they are, and are computed no more
        self.clock = 0  # how often they had to be computed anew
        self.work = passes
        self.cfg_scale = cfg_scale
        self.readout = Readout(logprobs=top or 0)
        self.passes = 0  # finished so far
        self.scores = np.zeros(len(passes))  # of each pass: the sum of the log probabilities that it read
        # of each pass: ids, log probabilities and ranks, where they are kept
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None if top is None else []
        self.record: list[PassRecord] | None = [] if recorded else None

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def settled(self) -> int:
        """Positions at the prompt's start whose keys and values others may use: none of a request's that decodes later."""
        return self.kept if self.rows is None else 0

    @property
    def done(self) -> bool:
        return self.passes == len(self.work)

    def plan(self) -> Pass:
        """The next pass."""
        masked, read = (part + self.start for part in self.work.pass_of(self.passes))
        token_ids = self.tokens.copy()
        token_ids[masked] = self.mask_id
        end = self.length if self.block is None else self._begin(read) + self.block
        planned = Pass(
            number=self.passes,
            queries=np.arange(self.kept, end),
            token_ids=token_ids[self.kept : end],
            end=end,
            reads=read,
            rows=read + self.row_shift,
            readout=self.readout,
            edits=None,
            probe=None,
            stale_pages=0,
            clock=self.clock,
            block=self.block,
            named=self.tokens[read],
        )
        if not self.cfg_scale:
            return planned
        token_ids = token_ids.copy()
        token_ids[: self.start] = self.mask_id
        return planned._replace(second=planned._replace(token_ids=token_ids, named=None, scale=self.cfg_scale))

    replan = plan  # a pass depends on nothing but its number and what is kept

    def _begin(self, read: np.ndarray) -> int:
        """Where the block begins in which a chain's pass reads."""
        assert self.block is not None
        return int(read[0]) // self.block * self.block

    def redo(self) -> Pass:
        """All passes once more, from the first: those before were read with other weights."""
        self.passes = 0
        self.refresh()
        if self.rows is not None:
            self.rows.clear()
        return self.plan()

    def postpone(self, planned: Pass) -> Pass | None:
        """In place of a pass that has no room: the first one, where everything is to be computed anew and a scored prompt,
        which is longer than a step may be, then begins with a block. Else it cannot go on with less."""
        anew = self.block is not None and not self.kept and self.passes > 0
        return self.redo() if anew and self.rows is not None else None

    def refresh(self) -> None:
        """Have the pass after the one under way recompute everything, where not every pass does."""
        self.kept = 0
        self.clock += 1

    def finish(self, done: Pass, seen: Observation, at: Any = None) -> Finished:
        """Keep what the pass read. Raises NotFinite."""
        assert done.number == self.passes, f"pass {done.number} is finished where pass {self.passes} is under way"
        if not seen.finite or seen.logprobs is None:
            raise NotFinite
        score = seen.logprobs[1][:, 0].sum(dtype=np.float64)
        if not np.isfinite(score):  # a token whose logit is -inf
            raise NotFinite
        self.scores[self.passes] = score
        if self.block is not None and done.clock == self.clock:
            self.kept = self._begin(done.reads)
        if self.rows is not None:
            self.rows.append(seen.logprobs)
        self.passes += 1
        if self.record is not None:
            self.record.append(PassRecord(done.tokens, done.full, [], 0, done.queries, done.end))
        return Finished(NOTHING, seen)

    def take_tokens(self) -> list[int]:
        """There is nothing to find."""
        return []

    def shown(self) -> dict[str, Any]:
        """For the trace."""
        cache = "none" if self.block is None else BlockCache.name
        return {
            "prompt_len": self.start,
            "gen_length": len(self.target),
            "cache": cache,
            "output_ids": self.target.tolist(),
        }
