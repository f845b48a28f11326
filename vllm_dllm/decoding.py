"""One request's decoding: canvas, policy and rule, from pass to observation to canvas."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vllm_dllm.caching.pages import PAGE_SIZE, RESET, PageLedger
from vllm_dllm.canvas import Canvas
from vllm_dllm.constraints import Constraint, admitted, bars_all, edits_of
from vllm_dllm.given_text import NO_TEXT, GivenText
from vllm_dllm.guidance import SecondCanvas
from vllm_dllm.messages import Observation, Readout
from vllm_dllm.passes import Pass
from vllm_dllm.records import PassRecord
from vllm_dllm.settings import ModelTraits, Settings
from vllm_dllm.unmasking.scores import CONFIDENCE64, defer, raw_scores, score
from vllm_dllm.unmasking.together import Asked, select_together

RAW = ("confidence", "margin", "entropy")  # scores that are read as they are, in float32
TOGETHER = 4  # requests from which on it pays to ask their rules at once


class Sampling:
    """How a request draws its tokens: temperature 0 takes the most likely one."""

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        logprobs: int | None = None,
        end_ids: frozenset[int] = frozenset(),
        min_p: float = 0.0,
    ):
        """`seed` None: a random one. `end_ids`: the tokens that end the response."""
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.seed = secrets.randbits(64) if seed is None else seed % 2**64
        self.logprobs = logprobs
        self.end_ids = end_ids
        self.min_p = min_p


class NotFinite(ArithmeticError):
    """For some position no token had a finite logit that was the largest: there is nothing to choose by.

    Its text says which constraints barred all, if they did; else it is the model's output.
    """


class Finished(NamedTuple):
    """What became of one pass."""

    unmasked: np.ndarray  # canvas positions, ascending
    seen: Observation


class Decoding:
    """The loop of one request, without the model:

        canvas -- policy --> pass -- (the worker) --> observation -- rule.select --> canvas
                                                         `-- policy.observe --> pages (fresh / stale)

    `plan` makes the next pass, `finish` takes it with what it read. Between the two the pass is whoever's who computes
    it: nothing here is asked about it again, and pages that are marked meanwhile stay marked.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        gen_length: int,
        settings: Settings,
        sampling: Sampling,
        traits: ModelTraits,
        page_size: int = PAGE_SIZE,
        recorded: bool = False,
        text: GivenText = NO_TEXT,
        constraints: Sequence[Constraint] = (),
        ends: Sequence[int] = (),
        computed: int = 0,
    ):
        """Raises SettingError if the settings do not fit the canvas. `recorded`: keep a record of each pass. `ends`: the
        tokens that end a text or a turn, for settings about them. `computed`: positions at the prompt's start whose keys
        and values are in the pages already."""
        settings.check_canvas(gen_length)
        self.settings = settings
        self.sampling = sampling
        self.policy = settings.make_policy(traits)
        self.rule = settings.make_rule()
        self.canvas = Canvas(
            prompt_ids,
            gen_length,
            traits.mask_id,
            settings.make_frontier(),
            given=text.at(len(prompt_ids)),
            suffix_ids=text.suffix,
            overflow=settings.canvas_length(len(prompt_ids), gen_length) - len(prompt_ids) - gen_length,
            drop_behind=sampling.end_ids if settings.drop_behind_end else frozenset(),
            drop_once=self.policy.drops_once,
            fill_behind=sampling.end_ids if settings.early_stop else frozenset(),
        )
        self.constraints = list(constraints)
        self.mask_id = traits.mask_id
        self.ends = np.asarray(ends, np.int32)
        self.canvas.settle(computed)
        self.pages = PageLedger(self.canvas.length, page_size, self.canvas.end, self.policy.reasons, computed)
        self.second = SecondCanvas(settings, traits, self.canvas, page_size) if settings.cfg_scale else None
        self.scores = settings.scores
        if self.policy.looks_ahead and self.scores is None:  # `random` once for all, to be known before a pass
            self.scores = np.random.default_rng((sampling.seed, 2)).random(gen_length, np.float32)
        self.readout = self._readout()
        self.draws = (settings.score == "random" and settings.scores is None) or self.rule.draws
        # whether what it unmasks is no more than a number of the best candidates, so that it may be asked with others
        self.ranks = (
            self.rule.ranks()
            and settings.score in RAW
            and settings.certainty_sigma is None
            and not (self.policy.looks_ahead or self.constraints or settings.defer_eos)
        )
        self.postponed = 0  # passes that a due refresh has waited
        self.sent = 0  # response tokens already given to the user
        # per response (and overflow) position: ids, log probabilities and rank, where the request wants them
        self.logprobs: list[Any] | None = None
        if self.readout.logprobs is not None:
            self.logprobs = [_certain(token) for token in self.canvas.decoded.tolist()]  # masked ones follow
        self.record: list[PassRecord] | None = [] if recorded or settings.record else None
        self.told = 0  # passes whose records were already given to the user

    # ---- before a pass ----

    def plan(self) -> Pass:
        """The next pass. Called once for each: the policy marks pages in it."""
        if self.policy.looks_ahead:
            self.policy.coming, _ = self._select(None)
        self.policy.mark(self.canvas, self.pages)
        if self.second is not None:
            self.second.mark(self.canvas, self.policy.coming)
        return self.replan()

    def replan(self, refresh: bool = True, end: int | None = None) -> Pass:
        """The planned pass as it is now, after pages were marked; without `refresh` stale pages wait. `end`: it goes no
        further than that."""
        canvas, policy, pages = self.canvas, self.policy, self.pages
        if policy.commits:
            canvas.settle(pages.computed_to)
            pages.grow(canvas.end)
        canvas.end = canvas.end if end is None else end
        queries = pages.queries(policy.positions(canvas), refresh, canvas.end)
        reads = policy.reads(canvas)
        return Pass(  # by place: names cost as much as all the rest of it
            canvas.passes,
            queries,
            canvas.tokens[queries],
            canvas.end,
            reads,
            policy.rows(reads),
            self.readout if self.sampling.temperature == 0 else self.readout._replace(seed=self._seed()),
            edits_of(self.constraints, canvas, reads),
            policy.probe(canvas),
            pages.num_stale if refresh else 0,
            pages.clock,
            None if self.second is None else self.second.plan(canvas, reads, refresh),
            block=self.settings.causal_block,
        )

    def postpone(self, planned: Pass) -> Pass | None:
        """`planned` without its refresh, which waits; None if it must not wait (any longer).

        The pages stay stale, so that the pass after it wants them again.
        """
        stale = planned.stale_pages or (planned.second is not None and planned.second.stale_pages)
        if not stale or not self.pages.computed_to or self.postponed >= self.settings.max_delay:
            return None
        self.postponed += 1
        return self.replan(refresh=False)

    def shorten(self, planned: Pass, most: int) -> Pass | None:
        """Of a `planned` pass that commits blocks the first ones alone, at most so many positions; None if it commits none,
        or too few."""
        chunk = self.settings.shortest_chunk(self.pages.page_size)
        end = min(self.pages.computed_to + most, self.canvas.block[0]) // chunk * chunk
        return self.replan(end=end) if self.policy.commits and end > self.pages.computed_to else None

    def refresh(self) -> None:
        """Have the pass after the one under way recompute the whole canvas."""
        for pages in self.ledgers:
            pages.forget(RESET)

    @property
    def ledgers(self) -> list[PageLedger]:
        """That of the canvas, and with guidance the second one's."""
        return [self.pages] if self.second is None else [self.pages, self.second.pages]

    @property
    def oldest_mark(self) -> int:
        """Passes since the longest-waiting stale page was marked; -1 if none is stale."""
        return max(pages.oldest_mark for pages in self.ledgers)

    @property
    def marks(self) -> dict[str, int]:
        """Pages marked so far, by reason."""
        if self.second is None:
            return self.pages.marks
        return {reason: count + self.second.pages.marks[reason] for reason, count in self.pages.marks.items()}

    def redo(self) -> Pass:
        """The pass under way once more, of the whole canvas: what it attended to was computed with other weights."""
        self.refresh()
        return self.replan()

    def _readout(self) -> Readout:
        """What every pass reads of its predictions."""
        s, settings = self.sampling, self.settings
        return Readout(
            s.temperature,
            s.top_k,
            s.top_p,
            0,
            settings.score == "margin",
            settings.needs_entropy,
            settings.score == CONFIDENCE64,
            0 if s.logprobs is None and settings.record else s.logprobs,
            s.min_p,
        )

    def _seed(self) -> int:
        """What the next pass draws with."""
        sequence = np.random.SeedSequence((self.sampling.seed, self.canvas.passes))
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)

    # ---- after it ----

    def finish(self, done: Pass, seen: Observation, at: np.ndarray | None = None) -> Finished:
        """Unmask what the rule selects and tell the policy. `at`: if the rule was asked already, what it selected, as places
        in `seen`, which is `completed` then.

        Raises NotFinite if that cannot be told.
        """
        canvas, policy = self.canvas, self.policy
        assert done.number == canvas.passes, f"pass {done.number} is finished where pass {canvas.passes} is under way"
        if not seen.finite:
            raise NotFinite(bars_all(self.constraints, canvas, done.reads, seen.vocab_size, self.mask_id) or "")
        if at is None:
            seen = self.completed(seen)
            chosen = self._choose(done, seen)
            at = seen.positions.searchsorted(chosen)
        else:
            chosen = seen.positions[at]
        canvas.unmask(chosen, seen.tokens[at])
        self.pages.record(done.queries, done.clock, done.end)
        self.pages.grow(canvas.end)
        if self.postponed and not any(pages.num_stale for pages in self.ledgers):
            self.postponed = 0
        policy.observe(canvas, self.pages, seen, chosen)
        if self.second is not None and done.second is not None:
            self.second.finish(canvas, done.second, seen, chosen)
        if self.logprobs is not None and seen.logprobs is not None:
            for position, i in zip((chosen - canvas.prompt_len).tolist(), at.tolist(), strict=True):
                self.logprobs[position] = tuple(part[i] for part in seen.logprobs)
        if self.record is not None:
            numbers = (chosen - canvas.prompt_len).tolist()
            signals = policy.signals(seen, at)
            stale = done.stale_pages + (done.second.stale_pages if done.second else 0)
            self.record.append(PassRecord(done.tokens, done.full, numbers, stale, done.queries, done.end, signals))
        return Finished(chosen, seen)

    def completed(self, seen: Observation) -> Observation:
        """What the rule sees of what a pass read."""
        seen.score = self.settings.score
        return self.policy.complete(self.canvas, seen)

    def _choose(self, done: Pass, seen: Observation) -> np.ndarray:
        """The canvas positions that the pass unmasks, ascending."""
        if not len(self.canvas.candidates):
            return self.canvas.candidates  # a pass that reads nothing
        if not self.policy.looks_ahead:
            chosen, scores = self._select(seen)
            chosen = np.sort(chosen)
            chosen = chosen[np.argsort(-scores[chosen], kind="stable")] if self.constraints else chosen
        else:  # the pass has read what the rule selected before it
            chosen = self.policy.coming if self.constraints else done.reads
        if not self.constraints:
            return chosen
        read = chosen
        if not all(constraint.lasting for constraint in self.constraints):
            read = chosen[np.isin(chosen, done.reads)]  # what was not may be barred by now: d2 fills it in
        kept = admitted(self.constraints, self.canvas, read, seen.tokens[np.searchsorted(seen.positions, read)])
        if len(chosen) and not kept.any():
            for policy in (self.policy, *(() if self.second is None else (self.second.policy,))):
                policy.start_over()
        return np.sort(read[kept])

    def _select(self, seen: Observation | None) -> tuple[np.ndarray, np.ndarray]:
        """The canvas positions that the rule unmasks in this pass, and all positions' scores."""
        canvas, settings = self.canvas, self.settings
        rng = np.random.default_rng((self.sampling.seed, canvas.passes, 1)) if self.draws else None
        scores = score(settings.score, canvas, seen, rng, self.scores, settings.certainty_sigma)
        if settings.defer_eos and seen is not None:
            defer(scores, seen, self.ends)
        return self.rule.select(canvas, scores, seen, rng), scores

    @property
    def length(self) -> int:
        """Of the canvas, once all of it exists."""
        return self.canvas.length

    @property
    def settled(self) -> int:
        """Positions at the canvas's start whose keys and values will not change, where blocks are committed."""
        return self.pages.computed_to

    @property
    def passes(self) -> int:
        """Finished so far."""
        return self.canvas.passes

    def shown(self) -> dict[str, Any]:
        """For the trace."""
        return {
            "prompt_len": self.canvas.prompt_len,
            "gen_length": self.canvas.gen_length,
            "cache": self.policy.name,
            "output_ids": self.canvas.response.tolist(),
        }

    def take_tokens(self) -> list[int]:
        """The response tokens that became final since the last call."""
        start, self.sent = self.sent, self._ready()
        return self.canvas.response[start : self.sent].tolist() if self.sent > start else []

    def _ready(self) -> int:
        """How many response tokens can be handed out: the last one may have to wait."""
        final = self.canvas.final
        return final - (final == self.canvas.gen_length and self.policy.waits(self.canvas, self.pages))

    def take_passes(self) -> list[PassRecord]:
        """The records of the passes since the last call."""
        assert self.record is not None
        start, self.told = self.told, len(self.record)
        return self.record[start:]


def choose_together(parts: Mapping[int, tuple[Any, Observation]]) -> dict[int, tuple[Observation, np.ndarray]]:
    """`seen` and `at`, for `finish`, of those decodings that may be asked at once."""
    whole: dict[int, Observation] = {}
    asked: list[Asked] = []
    for i, (decoding, seen) in parts.items():
        if decoding.ranks and seen.finite:
            seen = decoding.completed(seen)
            if 0 < len(seen.positions) == len(decoding.canvas.candidates):
                whole[i] = seen
                asked.append((decoding.rule, decoding.canvas, raw_scores(decoding.settings.score, seen)))
    if len(asked) < TOGETHER:
        return {}
    return {i: (seen, at) for (i, seen), at in zip(whole.items(), select_together(asked), strict=True)}


def _certain(token: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The log probabilities of a given token: there was nothing to choose."""
    return np.asarray([token], np.int32), np.zeros(1, np.float32), 1
