"""A request's `dllm_*` settings over the server's: checked against each other, and complete."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vllm_dllm.caching import CachePolicy
from vllm_dllm.caching.block import MERGE, BlockCache
from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.catalogue import (
    BLOCK_ADD_THRESHOLD,
    BLOCK_LENGTH,
    CACHE,
    CFG_SCALE,
    DEFAULT_RULE,
    DEFER_EOS,
    DROP_BEHIND_END,
    EARLY_STOP,
    GENERAL,
    HIDDEN_CACHE,
    HORIZON,
    MAX_DELAY,
    MODELS,
    RECORD,
    RULE_OPTIONS,
    SCORE,
    SCORES_GIVEN,
    SIGMA,
    SUPPRESS_EOS,
    WINDOW_LENGTH,
    Choice,
    check_attention,
    options,
)
from vllm_dllm.causal_blocks import CausalBlocks, whole_blocks
from vllm_dllm.frontier import Blocks, Frontier, MultiBlock, Window, num_blocks
from vllm_dllm.given_text import SUFFIX, TEMPLATE
from vllm_dllm.options import Option, SettingError, names
from vllm_dllm.unmasking import UnmaskingRule
from vllm_dllm.unmasking.denoising_steps import THRESHOLD as DYNAMIC_THRESHOLD
from vllm_dllm.unmasking.denoising_steps import DenoisingSteps
from vllm_dllm.unmasking.registry import RULES, rule_class


@dataclass(frozen=True)
class ModelTraits:
    """What of a model the decoding depends on."""

    mask_id: int
    row_shift: int  # position i is predicted at row i + row_shift
    steps: str  # whose way of counting fixed steps: `llada` or `dream`
    drop_behind_end: bool = False  # the default of `dllm_drop_behind_end`
    steps_rank_by: str | None = None  # what the authors' own loop ranks fixed steps by, for `confidence`
    # of a model whose attention is causal by blocks: the positions in one, unless set; None: every position sees all
    block_length: int | None = None
    dynamic_threshold: float | None = None  # and that of its authors' rule, which is the default then

    @property
    def attention(self) -> str:
        return "full" if self.block_length is None else "blocks"


def given(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `dllm_*` keys of `additional_config` or `extra_args`; a value of None is not given."""
    return {k: v for k, v in (settings or {}).items() if k.startswith("dllm_") and v is not None}


@dataclass(frozen=True)
class Settings:
    """One request's settings, checked and complete. Never changed: requests that ask for the same share them."""

    policy: type[CachePolicy]
    policy_options: dict[str, Any]
    rule: type[UnmaskingRule]
    rule_value: Any
    rule_options: dict[str, Any]
    block_length: int
    block_add_threshold: float | None  # None: one block at a time
    window_length: int | None
    horizon: int | None
    score: str  # with CONFIDENCE64 beside SCORES
    scores: np.ndarray | None
    certainty_sigma: float | None
    max_delay: int
    suppress_eos: bool
    defer_eos: bool
    drop_behind_end: bool
    early_stop: bool
    cfg_scale: float  # 0: no guidance
    record: bool
    attention: str  # `full`, or causal by `blocks`

    @property
    def cache(self) -> str:
        return self.policy.name

    @property
    def needs_entropy(self) -> bool:
        return self.score == "entropy" or self.rule.needs_entropy or self.policy.needs_entropy

    def make_policy(self, traits: ModelTraits) -> CachePolicy:
        return self.policy(row_shift=traits.row_shift, **self.policy_options)

    def make_rule(self) -> UnmaskingRule:
        rule: UnmaskingRule = self.rule(self.rule_value, **self.rule_options)  # type: ignore[call-arg]
        rule.score = self.score
        return rule

    @property
    def causal_block(self) -> int | None:
        """The positions in a block, where attention is causal by blocks."""
        return self.block_length if self.attention == "blocks" else None

    def canvas_length(self, prompt_len: int, gen_length: int) -> int:
        """Of a canvas without given text behind the response: whole blocks, where they are counted from its start."""
        length = prompt_len + gen_length
        return length if self.causal_block is None else whole_blocks(length, self.causal_block)

    def shortest_chunk(self, page_size: int) -> int:
        """The fewest positions that a pass which commits blocks may be cut to: whole blocks and pages."""
        return math.lcm(self.block_length, page_size)

    def make_frontier(self) -> Frontier:
        if self.causal_block is not None:
            return CausalBlocks(self.causal_block, self.policy.commits and not self.policy_options[MERGE.name])
        if self.window_length is not None:
            return Window(self.window_length, self.horizon)
        if self.block_add_threshold is not None:
            return MultiBlock(self.block_length, self.block_add_threshold, self.horizon)
        return Blocks(self.block_length, self.horizon)

    def check_canvas(self, gen_length: int) -> None:
        """Raise SettingError if they do not fit a response of this length."""
        block_length = gen_length if self.window_length is not None else min(self.block_length, gen_length)
        block_length = self.causal_block or block_length
        self.make_rule().check(gen_length, num_blocks(gen_length, block_length), block_length)
        if self.scores is not None and len(self.scores) != gen_length:
            raise SettingError(
                f"dllm_scores with {len(self.scores)} numbers is not allowed: it must have one for each of the "
                f"{gen_length} response tokens"
            )


class ServerSettings:
    """The server's settings, checked: what requests override. Those not given are absent.

    Raises SettingError.
    """

    def __init__(self, settings: Mapping[str, Any] | None, traits: ModelTraits):
        self.traits = traits
        self.given = _checked(settings)
        check_attention(self.given, traits.attention)
        for key, value in self.given.items():
            if options()[key].request_only:
                raise SettingError(f"{key}={value!r} is not allowed for a server: it is a request's setting")
        self._resolved: dict[str, Settings] = {}  # by what a request gives
        self.defaults = _resolve(self.given, {}, traits)

    def value(self, option: Option) -> Any:
        return self.given.get(option.key, option.default)

    @property
    def hidden_cache(self) -> bool:
        """Whether the worker keeps every layer's inputs: as set, else as the server's policy needs."""
        return _has_hidden_cache(self.given)

    def of_request(self, request: Mapping[str, Any] | None) -> Settings:
        """A request's settings over the server's.

        A policy, rule, score or window that the request chooses replaces the server's together with the settings
        that go with it. A request with given text has no horizon but its own, or it might not see that text. The text
        itself is not looked at. Raises SettingError for a setting that is unknown, out of range, the server's alone, or
        not read by what is chosen.
        """
        own = given(request)
        check_attention(own, self.traits.attention)
        text = [own.pop(option.key, None) for option in (TEMPLATE, SUFFIX)]
        server = self.given
        if any(text) and HORIZON.key in server:
            server = {k: v for k, v in server.items() if k != HORIZON.key}
        try:
            key = json.dumps([own, server is self.given], sort_keys=True)
        except TypeError:  # something that is no JSON, and is about to be refused
            key = repr(own)
        if key not in self._resolved:
            if len(self._resolved) >= 256:
                self._resolved.clear()
            checked = _checked(own)
            for name in checked:
                if options()[name].server_only:
                    raise SettingError(
                        f"{name}={checked[name]!r} is not allowed in a request: it is the server's setting"
                    )
            self._resolved[key] = _resolve(server, checked, self.traits)
        return self._resolved[key]


def resolve(server: Mapping[str, Any], request: Mapping[str, Any] | None, traits: ModelTraits) -> Settings:
    """A request's settings over a server's."""
    return ServerSettings(server, traits).of_request(request)


def _has_hidden_cache(server: Mapping[str, Any]) -> bool:
    policy = POLICIES[server.get(CACHE.key, CACHE.default)]
    return server.get(HIDDEN_CACHE.key, policy.needs_hidden())


def _checked(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    known = options()
    checked = {}
    for key, value in given(settings).items():
        if key not in known:
            raise SettingError(f"{key}={value!r} is not a setting; there are {', '.join(sorted(known))}")
        checked[key] = known[key].check(value)
    return checked


def _resolve(server: Mapping[str, Any], own: Mapping[str, Any], traits: ModelTraits) -> Settings:
    defaults = _defaults(traits)

    def value(option: Option) -> Any:
        return own.get(option.key, server.get(option.key, defaults.get(option, option.default)))

    policy = POLICIES[value(CACHE)]
    _check_policy(policy, traits)
    name, rule_value, rule_is_given = _rule(server, own, traits)
    rule = rule_class(name, traits.steps)
    score = _score(server, own, rule)
    window = _window(server, own, policy, rule)
    policy.check(name, score, traits.row_shift)
    if policy.needs_hidden() and not _has_hidden_cache(server):
        raise SettingError(
            f"{CACHE.key}={policy.name!r} is not allowed: the server keeps no hidden states for it; it must be started "
            f"with {CACHE.flag} {policy.name} or {HIDDEN_CACHE.flag} true"
        )
    choice = Choice(policy, rule, score, window is not None, traits.row_shift, traits.attention)
    read = _read(choice)
    # the server's own settings have been checked against the server's own choices
    for key in own if own else server:
        if options()[key] not in read:
            chosen = f"{CACHE.key}={policy.name}, {rule.option.key}={rule_value} and {SCORE.key}={score}"
            if window is not None:
                chosen = f"{WINDOW_LENGTH.key}={window}, {chosen}"
            raise SettingError(
                f"{key}={(own or server)[key]!r} is not read by {chosen}, which read "
                f"{names(sorted(read, key=lambda o: o.name))}"
            )

    def if_read(option: Option) -> Any:
        return value(option) if option in read else None

    behind = _behind_end(server, own, traits)
    scores = if_read(SCORES_GIVEN)
    if score == "confidence" and rule is RULES["steps"]:
        of_family = traits.steps_rank_by if policy.name == CACHE.default else None
        score = policy.steps_rank_by or of_family or score
    return Settings(
        policy=policy,
        policy_options={o.name: _policy_value(o, policy, server, own) for o in policy.options if o in read},
        rule=rule,
        rule_value=rule_value,
        rule_options=_rule_options(rule, rule_is_given, read, value, traits),
        block_length=value(BLOCK_LENGTH),
        block_add_threshold=if_read(BLOCK_ADD_THRESHOLD),
        window_length=window,
        horizon=if_read(HORIZON),
        score=score,
        scores=None if scores is None else np.asarray(scores, np.float32),
        certainty_sigma=if_read(SIGMA),
        max_delay=if_read(MAX_DELAY) or 0,
        suppress_eos=value(SUPPRESS_EOS),
        defer_eos=bool(if_read(DEFER_EOS)),
        drop_behind_end=policy.drops_behind_end or behind[DROP_BEHIND_END.key],
        early_stop=behind[EARLY_STOP.key] and not policy.drops_behind_end,
        cfg_scale=if_read(CFG_SCALE) or 0.0,
        record=value(RECORD),
        attention=traits.attention,
    )


def _defaults(traits: ModelTraits) -> dict[Option, Any]:
    """The defaults that are the model's."""
    if traits.attention == "full":
        return {}
    return {CACHE: BlockCache.name, BLOCK_LENGTH: traits.block_length}


def _check_policy(policy: type[CachePolicy], traits: ModelTraits) -> None:
    if traits.attention not in policy.attention:
        others = [p.name for p in POLICIES.values() if traits.attention in p.attention]
        raise SettingError(
            f"{CACHE.key}={policy.name!r} is not allowed with {MODELS[traits.attention]}: it must be one of "
            f"{', '.join(others)}"
        )


def _rule_options(
    rule: type[UnmaskingRule], is_given: bool, read: set[Option], value: Callable[[Option], Any], traits: ModelTraits
) -> dict[str, Any]:
    """The values of the rule's own options; where nobody chose the rule, they are the model's authors'."""
    found = {o.name: value(o) for o in rule.options if o in read}
    if not is_given and found.get(DYNAMIC_THRESHOLD.name, 0) is None:
        found[DYNAMIC_THRESHOLD.name] = traits.dynamic_threshold
    return found


def _behind_end(server: Mapping[str, Any], own: Mapping[str, Any], traits: ModelTraits) -> dict[str, bool]:
    """What becomes of masked positions behind an end, by the setting's key: the request's choice replaces the server's."""
    keys = (DROP_BEHIND_END.key, EARLY_STOP.key)
    for settings in (own, {**server, **own}):
        found = {key: settings[key] for key in keys if key in settings}
        if all(found.get(key) for key in keys):
            raise SettingError(f"{keys[0]}=True and {keys[1]}=True contradict each other: one of them must be false")
        if any(found.values()):
            return dict.fromkeys(keys, False) | found
    return {DROP_BEHIND_END.key: traits.drop_behind_end, EARLY_STOP.key: False} | found


def _policy_value(option: Option, policy: type[CachePolicy], server: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
    """The value of one of the policy's options. The server's is for another policy too, if their defaults are the same."""
    default = policy.defaults.get(option.name, option.default)
    servers = POLICIES[server.get(CACHE.key, CACHE.default)]
    if servers.defaults.get(option.name, option.default) == default:
        default = server.get(option.key, default)
    return own.get(option.key, default)


def _read(choice: Choice) -> set[Option]:
    """The settings that are read where `choice` was made."""
    ours = [o for o in GENERAL if o not in RULE_OPTIONS]
    every = [*ours, choice.rule.option, *choice.rule.options, *choice.policy.options]
    return {o for o in every if choice.attention in o.attention and (o.when is None or o.when(choice))}


def _score(server: Mapping[str, Any], own: Mapping[str, Any], rule: type[UnmaskingRule]) -> str:
    score = own.get(SCORE.key, server.get(SCORE.key, SCORE.default))
    if score not in rule.scores and SCORE.key not in (own or server):
        # the server's score, for another rule than the request's, or one that this rule cannot rank by
        score = SCORE.default if SCORE.default in rule.scores else rule.scores[0]
    if score not in rule.scores:
        raise SettingError(
            f"{SCORE.key}={score!r} is not allowed with {rule.option.key}: it must be one of {', '.join(rule.scores)}"
            + (" (origin needs a Dream model and dllm_steps)" if score == "origin" else "")
        )
    return score


def _window(
    server: Mapping[str, Any], own: Mapping[str, Any], policy: type[CachePolicy], rule: type[UnmaskingRule]
) -> int | None:
    """The sliding window's length, None where candidates come in blocks: the request's choice, else the server's."""
    length = own.get(WINDOW_LENGTH.key)
    in_blocks = policy.needs_blocks or rule.needs_blocks
    if length is None and (policy.window_length is not None or not own or not (in_blocks or BLOCK_LENGTH.key in own)):
        length = server.get(WINDOW_LENGTH.key, policy.window_length)
    if length is not None and in_blocks:
        if policy.needs_blocks:
            what, others = f"{CACHE.key}={policy.name}", [p.name for p in POLICIES.values() if not p.needs_blocks]
        else:
            what, others = rule.option.key, [r.option.key for r in RULES.values() if not r.needs_blocks]
        raise SettingError(
            f"{what} is not allowed with {CACHE.key}={policy.name} and {WINDOW_LENGTH.key}={length}, a window, which has "
            f"no blocks: it must be one of {', '.join(others)}"
        )
    return length


def _rule(server: Mapping[str, Any], own: Mapping[str, Any], traits: ModelTraits) -> tuple[str, Any, bool]:
    """The unmasking rule's name and value, the request's, else the server's, else the default; and whether it was given."""
    for settings in (own, server):
        chosen = [o for o in RULE_OPTIONS if o.key in settings]
        if len(chosen) > 1:
            raise SettingError(
                " and ".join(f"{o.key}={settings[o.key]!r}" for o in chosen)
                + f" contradict each other: at most one of {names(RULE_OPTIONS)} is allowed"
            )
        if chosen:
            _check_rule(RULES[chosen[0].name], settings[chosen[0].key], traits)
            return chosen[0].name, settings[chosen[0].key], True
    return *(DEFAULT_RULE if traits.attention == "full" else (DenoisingSteps.option.name, None)), False


def _check_rule(rule: type[UnmaskingRule], value: Any, traits: ModelTraits) -> None:
    if rule.counts_response_blocks and traits.attention == "blocks":
        others = [r.option for r in RULES.values() if not r.counts_response_blocks]
        raise SettingError(
            f"{rule.option.key}={value!r} is not allowed with a model whose blocks are counted from the prompt's start: it "
            f"must be one of {names(others)}"
        )
