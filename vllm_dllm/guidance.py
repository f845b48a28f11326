"""Classifier-free guidance (`dllm_cfg_scale`): a second canvas beside a request's own. Source: LLaDA's `generate.py`.

    own        | prompt         | response |   logits c         read: u + (scale + 1) (c - u), and everything
    second     | m m m m m m m  | response |   logits u         after that as ever

The second canvas has the own one's tokens, but for the prompt, which is masked: given text and a suffix stay. It has pages
and a policy of its own, for what is stale there, or flows through the attention, is another matter; both predict the
same positions in each pass, and what is unmasked is unmasked in both.
"""

from dataclasses import replace

import numpy as np

from vllm_dllm.caching.pages import PAGE_SIZE, PageLedger
from vllm_dllm.canvas import Canvas
from vllm_dllm.messages import Observation, Readout
from vllm_dllm.passes import Pass
from vllm_dllm.settings import ModelTraits, Settings


class SecondCanvas:
    """The second canvas of one request, whose own one is handed in: they differ in the prompt's tokens alone."""

    def __init__(self, settings: Settings, traits: ModelTraits, canvas: Canvas, page_size: int = PAGE_SIZE):
        self.scale = settings.cfg_scale
        self.mask_id = traits.mask_id
        self.policy = settings.make_policy(traits)
        self.pages = PageLedger(canvas.length, page_size, canvas.end, self.policy.reasons)

    def mark(self, canvas: Canvas, coming: np.ndarray) -> None:
        """Before a pass is planned; `coming` as the own policy has it."""
        self.policy.coming = coming
        self.policy.mark(canvas, self.pages)

    def plan(self, canvas: Canvas, reads: np.ndarray, refresh: bool) -> Pass:
        """The part of a pass that is the second canvas's: the own one's `reads`, and what its policy computes."""
        rows = self.policy.rows(reads)
        queries = self.pages.queries(np.union1d(self.policy.positions(canvas), rows), refresh)
        return Pass(
            number=canvas.passes,
            queries=queries,
            token_ids=np.where(queries < canvas.prompt_len, np.int32(self.mask_id), canvas.tokens[queries]),
            end=canvas.end,
            reads=reads,
            rows=rows,
            readout=Readout(),  # it is read through the own canvas's
            edits=None,
            probe=self.policy.probe(canvas),
            stale_pages=self.pages.num_stale if refresh else 0,
            clock=self.pages.clock,
            scale=self.scale,
        )

    def finish(self, canvas: Canvas, done: Pass, seen: Observation, unmasked: np.ndarray) -> None:
        """Once the own canvas is unmasked; `seen` is what the request read, with the second canvas's signals."""
        self.pages.record(done.queries, done.clock)
        self.pages.grow(canvas.end)
        signals, layer_tokens = seen.second
        self.policy.observe(canvas, self.pages, replace(seen, signals=signals, layer_tokens=layer_tokens), unmasked)
