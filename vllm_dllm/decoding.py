"""One request's decoding: canvas, policy and rule, from plan to observation to canvas."""

import secrets
from dataclasses import replace
from typing import Any

import numpy as np

from vllm_dllm.caching import PageLedger, Plan
from vllm_dllm.caching.pages import PAGE_SIZE
from vllm_dllm.canvas import Canvas
from vllm_dllm.observation import Observation, Readout
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, Settings
from vllm_dllm.unmasking.scores import score


class Sampling:
    """How a request draws its tokens: temperature 0 takes the most likely one."""

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        logprobs: int | None = None,
        eos_id: int | None = None,
    ):
        """`seed` None: a random one. `eos_id`: the token that ends the response, None if none does."""
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.seed = secrets.randbits(64) if seed is None else seed % 2**64
        self.logprobs = logprobs
        self.eos_id = eos_id


class Decoding:
    """The loop of one request, without the model:

        canvas -- policy --> plan -- (the worker's pass) --> observation -- rule.select --> canvas
                                                                 `-- policy.observe --> pages (fresh / stale)

    `next_pass` gives the plan and what to read; `finish_pass` takes the observation. A plan stays the
    same until its pass is finished, however long the pass waits.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        gen_length: int,
        settings: Settings,
        sampling: Sampling,
        traits: ModelTraits,
        page_size: int = PAGE_SIZE,
    ):
        self.settings = settings
        self.sampling = sampling
        self.traits = traits
        self.policy = settings.make_policy(traits)
        self.canvas = Canvas(
            prompt_ids, gen_length, settings.block_length, traits.mask_id, self.policy.window_length, sampling.eos_id
        )
        self.pages = PageLedger(self.canvas.length, page_size)
        self.rule = settings.make_rule(traits)
        self.double = settings.ranks_in_double(traits)
        self.check(self.canvas)
        self.rule.check(self.canvas)
        self.scores = settings.scores
        if self.policy.looks_ahead and self.scores is None:  # `random` once for all, to be known before a pass
            self.scores = np.random.default_rng((sampling.seed, 2)).random(gen_length, np.float32)
        self.plan: Plan | None = None
        self.delayed = 0  # passes that a due refresh has waited
        self.waited = 0  # steps in a row that had no room for the pass
        self.sent = 0  # response positions already given to the user
        # per response position: ids, log probabilities and rank, where the request wants them
        self.logprobs: list[Any] | None = None if sampling.logprobs is None else [None] * gen_length
        self.trace: list[dict[str, Any]] = []

    def check(self, canvas: Canvas) -> None:
        """Raise SettingError if the settings do not fit the canvas."""
        scores = self.settings.scores
        if scores is not None and len(scores) != canvas.gen_length:
            raise SettingError(
                f"dllm_scores with {len(scores)} numbers is not allowed: it must have one for each of the "
                f"{canvas.gen_length} response tokens"
            )

    def next_pass(self) -> Plan:
        if self.plan is None:
            canvas, policy, pages = self.canvas, self.policy, self.pages
            if policy.looks_ahead:
                policy.coming = self._select(None)
            policy.mark(canvas, pages)
            queries = pages.queries(policy.positions(canvas))
            self.plan = Plan(
                queries,
                policy.reads(canvas),
                full=len(queries) == canvas.length,
                stale_pages=pages.num_stale,
                drift=policy.drift(canvas),
            )
        return self.plan

    def refresh(self) -> None:
        """Have the next pass recompute the whole canvas."""
        self.pages.mark_all("reset")
        self.plan = None

    def postpone(self) -> Plan | None:
        """The next pass without its refresh, which waits; None if it must not wait (any longer).

        The pages stay stale, so that the pass after it wants them again.
        """
        plan = self.next_pass()
        if not plan.stale_pages or self.pages.unwritten or self.delayed >= self.settings.max_delay:
            return None
        self.delayed += 1
        queries = self.policy.positions(self.canvas)
        self.plan = replace(plan, queries=queries, full=len(queries) == self.canvas.length, stale_pages=0)
        return self.plan

    def _select(self, seen: Observation | None) -> np.ndarray:
        """The response positions that the rule unmasks in this pass, in its order."""
        canvas, settings = self.canvas, self.settings
        rng = np.random.default_rng((self.sampling.seed, canvas.passes, 1)) if settings.draws else None
        kind = "confidence64" if self.double else settings.score
        scores = score(kind, canvas, seen, rng, self.scores, settings.certainty_sigma)
        return self.rule.select(canvas, scores, seen, rng)

    def readout(self) -> Readout:
        """What the next pass reads at its rows, with the seed of this pass."""
        s = self.sampling
        seed = 0
        if s.temperature > 0:
            seed = int(np.random.SeedSequence((s.seed, self.canvas.passes)).generate_state(1, np.uint64)[0] >> 1)
        return Readout(
            s.temperature,
            s.top_k,
            s.top_p,
            seed,
            self.settings.needs_margin,
            self.settings.needs_entropy,
            self.double,
            s.logprobs,
        )

    def finish_pass(self, seen: Observation) -> None:
        """Unmask what the rule selects, tell the policy, and note the pass in the trace."""
        canvas, plan = self.canvas, self.plan
        assert plan is not None
        seen.score = self.settings.score
        seen = self.policy.complete(canvas, seen)
        chosen = plan.reads if self.policy.looks_ahead else np.sort(self._select(seen))
        read = np.searchsorted(seen.positions, chosen)
        canvas.unmask(chosen, seen.tokens[read])
        self.pages.record(plan.queries)
        if not self.pages.num_stale:
            self.delayed = 0
        self.policy.observe(canvas, self.pages, seen, chosen)
        if self.logprobs is not None and seen.logprobs is not None:
            for position, i in zip(chosen.tolist(), read.tolist(), strict=True):
                self.logprobs[position] = tuple(part[i] for part in seen.logprobs)
        self.plan = None
        self.trace.append(
            {
                "query_tokens": len(plan.queries),
                "full": plan.full,
                "unmasked": chosen.tolist(),
                "stale_pages": plan.stale_pages,
            }
            | self.policy.signals(seen, read)
        )

    def take_tokens(self) -> list[int]:
        """The tokens that became part of the final prefix since the last call."""
        start, self.sent = self.sent, self.canvas.prefix
        return self.canvas.response[start : self.sent].tolist()
