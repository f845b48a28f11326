"""Every `dllm_*` setting there is: what it is called, what it means, and by whom it is read.

A setting's name is the same everywhere: `dllm_cache` in `additional_config` and per request
(`extra_args`, `vllm_xargs`), `--dllm-cache` on the command line, `cache` in code.
"""

import functools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_dllm.caching import CachePolicy
from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.given_text import SUFFIX, TEMPLATE
from vllm_dllm.options import Option, SettingError
from vllm_dllm.unmasking import UnmaskingRule
from vllm_dllm.unmasking.registry import ALL_RULES, RULES
from vllm_dllm.unmasking.scores import SCORES


@dataclass(frozen=True)
class Choice:
    """What decides which other settings are read."""

    policy: type[CachePolicy]
    rule: type[UnmaskingRule]
    score: str
    window: bool
    row_shift: int
    attention: str  # `full`, or causal by `blocks`


IN_BLOCKS = ", ".join(f"`{rule.option.key}`" for rule in RULES.values() if rule.needs_blocks)
FULL = ("full",)  # of models in which every position sees all
CACHE = Option("cache", str, "none", "the caching policy", choices=tuple(POLICIES))
BLOCK_LENGTH = Option(
    "block_length",
    int,
    32,
    "positions in a block",
    low=1,
    when=lambda choice: not choice.window,
    read_by="blocks, not a window",
)
WINDOW_LENGTH = Option(
    "window_length",
    int,
    None,
    "candidates are the first masked positions, this many, instead of a block's"
    + "".join(f" ({p.name}: {p.window_length} unless set)" for p in POLICIES.values() if p.window_length),
    low=1,
    attention=FULL,
    when=lambda choice: choice.window,
    read_by="every policy but "
    + ", ".join(f"`{p.name}`" for p in POLICIES.values() if p.needs_blocks)
    + f"; every rule but {IN_BLOCKS}",
)
BLOCK_ADD_THRESHOLD = Option(
    "block_add_threshold",
    float,
    None,
    "several blocks at once: the next one is opened when this share of the last one is known (d3LLM)",
    low=0,
    high=1,
    attention=FULL,
    when=lambda choice: not (choice.window or choice.rule.needs_blocks or choice.policy.needs_one_block),
    read_by="blocks, not a window; every policy but "
    + ", ".join(f"`{p.name}`" for p in POLICIES.values() if p.needs_one_block)
    + f"; every rule but {IN_BLOCKS}",
)
HORIZON = Option(
    "horizon",
    int,
    None,
    "the canvas exists so many positions behind the active block (or window) and grows with it; unset: all of it does",
    low=0,
    attention=FULL,
)
SCORE = Option("score", str, "confidence", "what ranks masked positions; origin: Dream's, with steps", choices=SCORES)
# bounds that float32 can hold: an infinite score would not be a score, and sigma is squared
SCORES_GIVEN = Option(
    "scores",
    list,
    None,
    "the scores of dllm_score=random, one for each response token",
    low=-1e30,
    high=1e30,
    attention=FULL,
    when=lambda choice: choice.score == "random",
    read_by="`dllm_score=random`",
)
SIGMA = Option(
    "certainty_sigma",
    float,
    None,
    "certainty prior on the score, width in tokens",
    low=0.01,
    high=10000,
    when=lambda choice: choice.score not in ("random", "origin"),
    read_by="`dllm_score` of `confidence`, `margin` or `entropy`",
)
SUPPRESS_EOS = Option("suppress_eos", bool, False, "the end-of-sequence token is never chosen")
DEFER_EOS = Option(
    "defer_eos",
    bool,
    False,
    "positions whose token is the end of sequence or of turn are unmasked last",
    when=lambda choice: choice.score != "origin" and not choice.policy.looks_ahead,
    read_by="every policy but "
    + ", ".join(f"`{p.name}`" for p in POLICIES.values() if p.looks_ahead)
    + "; every score but `origin`",
)
DROP_BEHIND_END = Option(
    "drop_behind_end",
    bool,
    False,
    "once a token that ends the response is unmasked, masked positions behind it are no candidates any more",
    when=lambda choice: not choice.policy.drops_behind_end,
    read_by="every policy but "
    + ", ".join(f"`{p.name}`" for p in POLICIES.values() if p.drops_behind_end)
    + ", which always does it",
)
EARLY_STOP = Option(
    "early_stop",
    bool,
    False,
    "once a token that ends the response is unmasked, all behind it becomes that token (d3LLM)",
    attention=FULL,
    when=lambda choice: not choice.policy.drops_behind_end,
    read_by="every policy but " + ", ".join(f"`{p.name}`" for p in POLICIES.values() if p.drops_behind_end),
)
CFG_SCALE = Option(
    "cfg_scale",
    float,
    0.0,
    "classifier-free guidance by a second canvas whose prompt is masked; 0: none",
    low=0,
    high=1000,
    attention=FULL,
)
MAX_DELAY = Option(
    "max_delay",
    int,
    0,
    "passes that a refresh over a step's token budget may wait",
    low=0,
    attention=FULL,
    when=lambda choice: choice.policy.name != CACHE.default,
    read_by="every policy but `none`",
)
GEN_LENGTH = Option("gen_length", int, 256, "response length of a request without max_tokens", low=1, server_only=True)
HIDDEN_CACHE = Option(
    "hidden_cache",
    bool,
    None,
    "keep hidden states, so that requests may choose a policy that needs them: "
    + ", ".join(p.name for p in POLICIES.values() if p.needs_hidden()),
    server_only=True,
)
OVERLAP = Option(
    "overlap",
    str,
    "auto",
    "have two sets of requests in flight by turns, so that scheduling goes on while the model computes; auto: where that "
    "is measured to be faster, on a GPU and on CPU with workers of their own",
    choices=("auto", "on", "off"),
    server_only=True,
)
RECORD = Option("record", bool, False, "the answer tells what each of its passes did, and what was unmasked in it")
TRACE = Option("trace", str, None, "a file that gets one JSON line for each finished request", server_only=True)
WATCH = Option(
    "watch", bool, False, "a page at /dllm that shows requests, prompts included, as they are decoded", server_only=True
)

MODELS = {"full": "a model in which every position sees all", "blocks": "a model whose attention is causal by blocks"}
RULE_OPTIONS = tuple(rule.option for rule in RULES.values())
GENERAL = (
    CACHE,
    BLOCK_LENGTH,
    BLOCK_ADD_THRESHOLD,
    WINDOW_LENGTH,
    HORIZON,
    *RULE_OPTIONS,
    SCORE,
    SCORES_GIVEN,
    SIGMA,
    SUPPRESS_EOS,
    DEFER_EOS,
    DROP_BEHIND_END,
    EARLY_STOP,
    CFG_SCALE,
    GEN_LENGTH,
    MAX_DELAY,
    HIDDEN_CACHE,
    OVERLAP,
    RECORD,
    TRACE,
    WATCH,
    TEMPLATE,
    SUFFIX,
)
DEFAULT_RULE = ("threshold", 0.9)


def check_attention(given: Mapping[str, Any], attention: str) -> None:
    """Raise SettingError for a setting, by its key, that cannot be had with a model of this attention, whatever is chosen."""
    known = options()
    for key, value in given.items():
        option = known.get(key)
        if option is None or attention in option.attention or value is None or value in ("", []):
            continue
        why = f"it is for {MODELS['full']}"
        if option is SUFFIX:
            why = "no position sees what stands behind its block"
        raise SettingError(
            f"{option.key}={textwrap.shorten(repr(value), 80)} is not allowed with {MODELS[attention]}: it must be left out, "
            f"because {why}"
        )


@functools.cache
def options() -> dict[str, Option]:
    """Every setting there is, by key: the general ones, then those of rules and of policies.

    Raises ValueError if a rule or policy declares a setting that there is already, with another meaning.
    """
    found: dict[str, Option] = {}
    for option in GENERAL:
        if found.setdefault(option.key, option) is not option:
            raise ValueError(f"an unmasking rule is chosen by {option.key}, another setting's name")
    owners = [("unmasking rule", rule.option.name, rule.options) for rule in ALL_RULES]
    owners += [("caching policy", policy.name, policy.options) for policy in POLICIES.values()]
    for kind, name, own in owners:
        for option in own:
            if found.setdefault(option.key, option) != option:
                raise ValueError(f"{kind} {name} declares {option.key}, another setting's name")
    return found
