"""One request's decoding: canvas, policy and rule, from plan to observation to canvas."""

from typing import Any

import numpy as np

from vllm_dllm.caching import Plan
from vllm_dllm.canvas import Canvas
from vllm_dllm.config import ModelTraits, Settings
from vllm_dllm.observation import Observation, Readout
from vllm_dllm.options import SettingError
from vllm_dllm.unmasking.scores import score


class Sampling:
    """How a request draws its tokens: temperature 0 takes the most likely one."""

    def __init__(self, temperature=0.0, top_k=0, top_p=1.0, seed: int | None = None, logprobs: int | None = None):
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.seed = np.random.SeedSequence().entropy if seed is None else seed % 2**64
        self.logprobs = logprobs


class Decoding:
    """The loop of one request, without the model:

        canvas -- policy.plan --> plan -- (the worker's pass) --> observation -- rule.select --> canvas

    `next_pass` gives the plan and what to read; `finish_pass` takes the observation. A plan stays the
    same until its pass is finished, however long the pass waits.
    """

    def __init__(
        self, prompt_ids: list[int], gen_length: int, settings: Settings, sampling: Sampling, traits: ModelTraits
    ):
        self.settings = settings
        self.sampling = sampling
        self.traits = traits
        self.canvas = Canvas(prompt_ids, gen_length, settings.block_length, traits.mask_id)
        self.policy = settings.make_policy(traits)
        self.rule = settings.make_rule(traits)
        self.check(self.canvas)
        self.rule.check(self.canvas)
        self.plan: Plan | None = None
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
            self.plan = self.policy.plan(self.canvas)
        return self.plan

    def readout(self) -> Readout:
        """What the next pass reads at its rows, with the seed of this pass."""
        s = self.sampling
        seed = 0
        if s.temperature > 0:
            seed = int(np.random.SeedSequence((s.seed, self.canvas.passes)).generate_state(1, np.uint64)[0] >> 1)
        return Readout(
            s.temperature, s.top_k, s.top_p, seed, self.settings.needs_margin, self.settings.needs_entropy, s.logprobs
        )

    def finish_pass(self, seen: Observation) -> None:
        """Unmask what the rule selects, tell the policy, and note the pass in the trace."""
        canvas, plan, settings = self.canvas, self.plan, self.settings
        assert plan is not None
        rng = np.random.default_rng((self.sampling.seed, canvas.passes, 1)) if settings.draws else None
        scores = score(settings.score, canvas, seen, rng, settings.scores, settings.certainty_sigma)
        chosen = np.sort(self.rule.select(canvas, scores, seen, rng))
        read = np.searchsorted(seen.positions, chosen)
        canvas.unmask(chosen, seen.tokens[read])
        self.policy.observe(canvas, plan, seen, chosen)
        if self.logprobs is not None and seen.logprobs is not None:
            for position, i in zip(chosen.tolist(), read.tolist(), strict=True):
                self.logprobs[position] = tuple(part[i] for part in seen.logprobs)
        self.plan = None
        self.trace.append({"query_tokens": len(plan.queries), "full": plan.full, "unmasked": chosen.tolist()})

    def take_tokens(self) -> list[int]:
        """The tokens that became part of the final prefix since the last call."""
        start, self.sent = self.sent, self.canvas.prefix
        return self.canvas.response[start : self.sent].tolist()
