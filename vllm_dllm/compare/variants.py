"""What is compared: policies, each with its settings."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_dllm.caching.registry import FULL, POLICIES
from vllm_dllm.catalogue import CACHE, HIDDEN_CACHE, RULE_OPTIONS, options
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, resolve

BASELINE = "none"
TOKENS_PER_STEP = "dllm_tokens_per_step"
TOKENS = 2  # a pass, for a policy that must know the number; where a threshold of 0.9 decides it is about as many


@dataclass(frozen=True)
class Variant:
    """A policy with settings of its own."""

    name: str  # as it was asked for
    settings: dict[str, Any]  # a request's
    added: dict[str, Any] = field(default_factory=dict)  # those that were not asked for, but cannot be done without

    @property
    def cache(self) -> str:
        return self.settings[CACHE.key]

    @property
    def flags(self) -> list[str]:
        """What makes them a server's, on the command line."""
        known = options()
        return [part for key, value in self.settings.items() for part in (known[key].flag, _text(value))]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def variant(word: str, tokens: int = TOKENS) -> Variant:
    """`entropy`, or `entropy:tau=0.2,scope=page`: a policy, and some of its settings. Raises SettingError."""
    name, _, rest = word.partition(":")
    settings: dict[str, Any] = {CACHE.key: CACHE.check(name)}
    for part in filter(None, rest.split(",")):
        key, _, text = part.partition("=")
        option = options().get(f"dllm_{key}")
        if option is None:
            raise SettingError(f"dllm_{key}={text!r} is not a setting; there are {', '.join(sorted(options()))}")
        try:
            value = text if option.type is str else json.loads(text)
        except json.JSONDecodeError:
            raise option.refusal(text) from None
        settings[option.key] = option.check(value)
    return complete(word, settings, tokens)


def complete(name: str, settings: dict[str, Any], tokens: int = TOKENS) -> Variant:
    """With what the policy cannot be had without."""
    needed = dict(POLICIES[settings[CACHE.key]].example)
    rules = {rule.key for rule in RULE_OPTIONS}
    if rules & set(settings):
        needed = {key: value for key, value in needed.items() if key not in rules}
    elif TOKENS_PER_STEP in needed:
        needed[TOKENS_PER_STEP] = tokens
    added = {key: value for key, value in needed.items() if key not in settings}
    return Variant(name, settings | added, added)


def variants(words: Iterable[str] = (), attention: str = "full") -> list[Variant]:
    """The baseline first; if none are named, all policies for models of this `attention`. Raises SettingError."""
    names = words or [name for name, policy in POLICIES.items() if attention in policy.attention]
    return [variant(word) for word in dict.fromkeys((BASELINE, *names))]


def fixed_steps(tokens: int) -> list[Variant]:
    """Every policy with so many tokens in each pass, whatever the model says: for random weights.

    Those are always in doubt, so that a policy that refreshes in doubt always does; trained ones are between that and
    never.
    """
    found = [complete(name, {CACHE.key: name, TOKENS_PER_STEP: tokens}, tokens) for name in FULL]
    never = [
        Variant(f"{v.name}, never in doubt", v.settings | {"dllm_tau": 1e6}) for v in found if v.cache == "entropy"
    ]
    return found + never


def needs_hidden(chosen: Iterable[Variant]) -> bool:
    """Whether the server must keep hidden states for one of them."""
    return any(POLICIES[v.cache].needs_hidden() for v in chosen)


def settings_for(variant: Variant, own: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's settings for a request that has some of its `own`: those of a policy are the variant's alone."""
    of_policies = {CACHE.key, *(option.key for policy in POLICIES.values() for option in policy.options)}
    return {key: value for key, value in own.items() if key not in of_policies} | variant.settings


def possible(
    chosen: Sequence[Variant],
    server: Mapping[str, Any],
    model: ModelTraits,
    requests: Iterable[Mapping[str, Any]] = ({},),
) -> tuple[list[Variant], dict[str, str]]:
    """Those that can be had with this server and model for every request's own settings, and why the others cannot.

    Raises SettingError if the baseline cannot.
    """
    server = {HIDDEN_CACHE.key: needs_hidden(chosen), **server}
    distinct = {json.dumps(own, sort_keys=True): own for own in requests}
    can, cannot = [], {}
    for v in chosen:
        try:
            for own in distinct.values():
                resolve(server, settings_for(v, own), model)
        except SettingError as e:
            if v.name == BASELINE:
                raise
            cannot[v.name] = str(e)
        else:
            can.append(v)
    return can, cannot
