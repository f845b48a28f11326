"""The `dllm_*` settings: defaults, validation, and how a request's override the server's.

A setting's name is the same everywhere: `dllm_cache` in `additional_config` and per request
(`extra_args`, `vllm_xargs`), `--dllm-cache` on the command line, `cache` in code.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vllm_dllm.caching import CachePolicy
from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.options import Option, SettingError, names
from vllm_dllm.unmasking import RULES, DreamSteps, UnmaskingRule
from vllm_dllm.unmasking.scores import SCORES

CACHE = Option("cache", str, "none", "the caching policy", choices=tuple(POLICIES))
BLOCK_LENGTH = Option("block_length", int, 32, "positions in a block", low=1)
SCORE = Option("score", str, "confidence", "what ranks masked positions; origin: Dream's, with steps", choices=SCORES)
# bounds that float32 can hold: an infinite score would not be a score, and sigma is squared
SCORES_GIVEN = Option(
    "scores", list, None, "the scores of dllm_score=random, one for each response token", low=-1e30, high=1e30
)
SIGMA = Option("certainty_sigma", float, None, "certainty prior on the score, width in tokens", low=0.01, high=10000)
ALG_TEMP = Option(
    "alg_temp", float, None, "Dream's alg_temp: draw positions by softmax(score / this), with steps", low=0
)
GEN_LENGTH = Option("gen_length", int, 256, "response length of a request without max_tokens", low=1, server_only=True)
MAX_DELAY = Option("max_delay", int, 0, "passes that a refresh over a step's token budget may wait", low=0)
HIDDEN_CACHE = Option(
    "hidden_cache", bool, None, "keep hidden states, so that requests may choose elastic", server_only=True
)
TRACE = Option("trace", str, None, "a file that gets one JSON line for each finished request", server_only=True)

RULE_OPTIONS = tuple(rule.option for rule in RULES.values())
GENERAL = (
    CACHE,
    BLOCK_LENGTH,
    *RULE_OPTIONS,
    SCORE,
    SCORES_GIVEN,
    SIGMA,
    ALG_TEMP,
    GEN_LENGTH,
    MAX_DELAY,
    HIDDEN_CACHE,
    TRACE,
)
DEFAULT_RULE = ("threshold", 0.9)


@functools.cache
def options() -> dict[str, Option]:
    """Every setting there is, by key: the general ones and those of the policies.

    Raises ValueError if a policy declares a setting that there is already, with another meaning.
    """
    found = {o.key: o for o in GENERAL}
    for policy in POLICIES.values():
        for option in policy.options:
            if found.setdefault(option.key, option) != option:
                raise ValueError(f"caching policy {policy.name} declares {option.key}, another setting's name")
    return found


def given(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `dllm_*` keys of `additional_config` or `extra_args`; a value of None is not given."""
    return {k: v for k, v in (settings or {}).items() if k.startswith("dllm_") and v is not None}


@dataclass(frozen=True)
class ModelTraits:
    """What of a model the decoding depends on."""

    mask_id: int
    row_shift: int  # position i is predicted at row i + row_shift
    dream: bool  # counts fixed steps along Dream's timesteps


@dataclass(frozen=True)
class Settings:
    """One request's settings, checked and complete."""

    cache: str
    cache_options: dict[str, Any]
    rule: str
    rule_value: Any
    block_length: int
    score: str
    scores: np.ndarray | None
    certainty_sigma: float | None
    alg_temp: float
    max_delay: int

    @property
    def needs_margin(self) -> bool:
        return self.score == "margin"

    @property
    def needs_entropy(self) -> bool:
        return self.score == "entropy" or RULES[self.rule].needs_entropy or POLICIES[self.cache].needs_entropy

    @property
    def draws(self) -> bool:
        """Whether positions (not tokens) are drawn, so that a generator is needed."""
        return self.scores is None and self.score in ("random", "origin") or self.alg_temp > 0

    def ranks_in_double(self, traits: ModelTraits) -> bool:
        """Whether the source of LLaDA's fixed steps with this policy ranks by a softmax in float64."""
        return POLICIES[self.cache].double and self.rule == "steps" and self.score == "confidence" and not traits.dream

    def make_policy(self, traits: ModelTraits) -> CachePolicy:
        return POLICIES[self.cache](row_shift=traits.row_shift, **self.cache_options)

    def make_rule(self, traits: ModelTraits) -> UnmaskingRule:
        if self.rule == "steps" and traits.dream:
            return DreamSteps(self.rule_value, alg_temp=self.alg_temp, origin=self.score == "origin")
        rule: Callable[[Any], UnmaskingRule] = RULES[self.rule]
        return rule(self.rule_value)


def check_server(settings: Mapping[str, Any] | None, traits: ModelTraits) -> dict[str, Any]:
    """The server's settings, checked; those not given are absent.

    Raises SettingError.
    """
    checked = _checked(settings)
    _resolve(checked, {}, traits)
    return checked


def resolve(server: Mapping[str, Any], request: Mapping[str, Any] | None, traits: ModelTraits) -> Settings:
    """A request's settings over the server's (`server` as `check_server` gave it).

    A policy, rule or score that the request chooses replaces the server's together with the settings
    that go with it. Raises SettingError for a setting that is unknown, out of range, the server's alone,
    or not read by what is chosen.
    """
    own = _checked(request)
    for key in own:
        if options()[key].server_only:
            raise SettingError(f"{key}={own[key]!r} is not allowed in a request: it is the server's setting")
    return _resolve(server, own, traits)


def has_hidden_cache(server: Mapping[str, Any]) -> bool:
    """Whether the worker keeps every layer's inputs: as set, else as the server's policy needs."""
    return server.get(HIDDEN_CACHE.key, POLICIES[server.get(CACHE.key, CACHE.default)].needs_hidden)


def _checked(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    known = options()
    checked = {}
    for key, value in given(settings).items():
        if key not in known:
            raise SettingError(f"{key}={value!r} is not a setting; there are {', '.join(sorted(known))}")
        checked[key] = known[key].check(value)
    return checked


def _resolve(server: Mapping[str, Any], own: Mapping[str, Any], traits: ModelTraits) -> Settings:
    def value(option: Option) -> Any:
        return own.get(option.key, server.get(option.key, option.default))

    cache = value(CACHE)
    rule, rule_value = _rule(server, own)
    kind = RULES[rule] if not (rule == "steps" and traits.dream) else DreamSteps
    score = value(SCORE)
    if own and score not in kind.scores and SCORE.key not in own:
        score = SCORE.default  # the server's score, for another rule than the request's
    if score not in kind.scores:
        raise SettingError(
            f"{SCORE.key}={score!r} is not allowed with {kind.option.key}: it must be one of {', '.join(kind.scores)}"
            + (" (origin needs a Dream model and dllm_steps)" if score == "origin" else "")
        )

    POLICIES[cache].check(rule, score, traits.row_shift)
    if POLICIES[cache].needs_hidden and not has_hidden_cache(server):
        raise SettingError(
            f"{CACHE.key}={cache!r} is not allowed: the server keeps no hidden states for it; it must be started with "
            f"{CACHE.flag} {cache} or {HIDDEN_CACHE.flag} true"
        )
    policy_options = [o for o in POLICIES[cache].options if traits.row_shift or not o.row_shift_only]
    read = {CACHE, SCORE, kind.option, GEN_LENGTH, HIDDEN_CACHE, TRACE, *policy_options}
    if cache != "none":
        read.add(MAX_DELAY)
    if not POLICIES[cache].has_window:
        read.add(BLOCK_LENGTH)
    if score == "random":
        read.add(SCORES_GIVEN)
    elif score != "origin":
        read.add(SIGMA)
    if kind is DreamSteps and score != "origin":
        read.add(ALG_TEMP)
    # the server's own settings have been checked against the server's own choices
    for key in own if own else server:
        if options()[key] not in read:
            raise SettingError(
                f"{key}={(own or server)[key]!r} is not read by {CACHE.key}={cache}, {kind.option.key}={rule_value} and "
                f"{SCORE.key}={score}, which read {names(sorted(read, key=lambda o: o.name))}"
            )

    def if_read(option: Option) -> Any:
        return value(option) if option in read else None

    scores = if_read(SCORES_GIVEN)
    return Settings(
        cache=cache,
        cache_options={o.name: value(o) for o in policy_options},
        rule=rule,
        rule_value=rule_value,
        block_length=value(BLOCK_LENGTH),
        score=score,
        scores=None if scores is None else np.asarray(scores, np.float32),
        certainty_sigma=if_read(SIGMA),
        alg_temp=if_read(ALG_TEMP) or 0.0,
        max_delay=if_read(MAX_DELAY) or 0,
    )


def _rule(server: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, Any]:
    """The unmasking rule's name and value: the request's, else the server's, else the default."""
    for settings in (own, server):
        chosen = [o for o in RULE_OPTIONS if o.key in settings]
        if len(chosen) > 1:
            raise SettingError(
                " and ".join(f"{o.key}={settings[o.key]!r}" for o in chosen)
                + f" contradict each other: at most one of {names(RULE_OPTIONS)} is allowed"
            )
        if chosen:
            return chosen[0].name, settings[chosen[0].key]
    return DEFAULT_RULE
