"""What benchmarks/fidelity.py measures: for each policy its knobs and their values."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.catalogue import DEFAULT_RULE, WINDOW_LENGTH, options
from vllm_dllm.models import ARCHITECTURES
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, resolve

ROOT = Path(__file__).parent.parent
CHECKPOINTS = ("tiny-llada", "tiny-dream")


@dataclass(frozen=True)
class Sweep:
    """A policy and the values of one of its settings, the others at their defaults.

    The default itself is always among the values. `main`: the policy's curve in the picture; one for each
    policy and variant. `baseline`: what it is compared with.
    """

    name: str
    settings: dict[str, Any]
    knob: str | None = None
    listed: tuple[Any, ...] = ()
    main: bool = True
    baseline: dict[str, Any] = field(default_factory=lambda: {"dllm_cache": "none"})

    @property
    def default(self) -> Any:
        if self.knob is None:
            return None
        rule, value = DEFAULT_RULE
        known = {f"dllm_{rule}": value, WINDOW_LENGTH.key: POLICIES[self.cache].window_length}
        return known.get(self.knob, options()[self.knob].default)

    @property
    def values(self) -> list[Any]:
        return [None] if self.knob is None else sorted({*self.listed, self.default})

    def at(self, value: Any) -> dict[str, Any]:
        """The settings with the knob at `value`."""
        return self.settings if self.knob is None else self.settings | {self.knob: value}

    def baseline_at(self, value: Any) -> dict[str, Any]:
        """What is compared with the knob at `value`: no cache, and the same blocks."""
        same = self.knob == "dllm_block_length" and self.cache != "none"
        return self.baseline | {self.knob: value} if same else self.baseline

    @property
    def cache(self) -> str:
        return self.settings["dllm_cache"]


def _sweeps() -> Iterator[Sweep]:
    blocks = (8, 16, 32, 64, 96)
    intervals = (2, 4, 8, 16, 32)
    taus = (0.1, 0.2, 0.3, 0.5, 1.0)
    none = {"dllm_cache": "none"}
    yield Sweep("none", none, "dllm_threshold", (0.5, 0.7, 0.8, 0.9, 0.95, 0.99))
    yield Sweep("none", none, "dllm_block_length", blocks, main=False)
    for cache in ("prefix", "dual"):
        yield Sweep(cache, {"dllm_cache": cache}, "dllm_block_length", blocks)
    yield Sweep("dkv-decode", {"dllm_cache": "dkv-decode"}, "dllm_refresh_interval", intervals)
    un_right = {"dllm_shift": "un_right"}  # Dream alone
    yield Sweep("dkv-decode, un_right", {"dllm_cache": "dkv-decode"} | un_right, "dllm_refresh_interval", intervals)
    # an order known in advance: the same random one with and without the cache
    random = {"dllm_score": "random", "dllm_tokens_per_step": 2}
    greedy, baseline = {"dllm_cache": "dkv-greedy"} | random, none | random
    yield Sweep("dkv-greedy", greedy, "dllm_refresh_interval", intervals, baseline=baseline)
    yield Sweep("dkv-greedy", greedy, "dllm_window_size", (0, 2, 4, 8, 16), main=False, baseline=baseline)
    yield Sweep("none, random order", baseline, main=False, baseline=baseline)
    yield Sweep("dkv-prefill", {"dllm_cache": "dkv-prefill"})
    yield Sweep("dkv-pd", {"dllm_cache": "dkv-pd"}, "dllm_refresh_interval", intervals)
    yield Sweep("dkv-pd, un_right", {"dllm_cache": "dkv-pd"} | un_right, "dllm_refresh_interval", intervals)
    yield Sweep("dkv-pd", {"dllm_cache": "dkv-pd"}, "dllm_prompt_interval", (0, 2, 3, 4, 8), main=False)
    entropy = {"dllm_cache": "entropy", "dllm_scope": "canvas"}
    yield Sweep("entropy", entropy, "dllm_tau", taus)
    yield Sweep("entropy", entropy, "dllm_recent_k", (0, 8, 16, 32, 64), main=False)
    page = entropy | {"dllm_scope": "page"}
    yield Sweep("entropy, by page", page, "dllm_tau", taus)
    yield Sweep("entropy, by page", page, "dllm_reach", (0, 1, 2), main=False)
    yield Sweep("entropy, by page", page, "dllm_max_age", (2, 4, 8, 16), main=False)
    elastic = {"dllm_cache": "elastic"}
    yield Sweep("elastic", elastic, "dllm_gamma", (0.5, 0.7, 0.8, 0.9, 0.95, 0.99))
    yield Sweep("elastic", elastic, "dllm_window_length", (8, 16, 32), main=False)
    yield Sweep("elastic", elastic, "dllm_track_num", (1, 2, 4), main=False)
    yield Sweep("d3", {"dllm_cache": "d3"})
    d2 = {"dllm_cache": "d2"}
    yield Sweep("d2", d2, "dllm_rollout_p", (0.1, 0.2, 0.4, 0.6, 0.8))
    yield Sweep("d2", d2, "dllm_current_k", (8, 16, 32, 64), main=False)
    yield Sweep("d2", d2, "dllm_cache_sigma", (5.0, 10.0, 20.0), main=False)
    yield Sweep("d2", d2, "dllm_inflate_w", (0, 4, 8), main=False)


SWEEPS = tuple(_sweeps())


def traits(checkpoint: str) -> ModelTraits:
    config = json.loads((ROOT / "checkpoints" / checkpoint / "config.json").read_text())
    family = ARCHITECTURES[config["architectures"][0]]
    return ModelTraits(config["mask_token_id"], family.row_shift, family.steps)


def explicit(settings: dict[str, Any], checkpoint: str) -> dict[str, Any] | None:
    """`settings` with every default that is read written out; None if the checkpoint cannot have them."""
    model = traits(checkpoint)
    try:
        full = resolve({"dllm_hidden_cache": True}, settings, model)
    except SettingError:
        return None
    found = {"dllm_cache": full.cache, full.rule.option.key: full.rule_value, "dllm_score": full.score}
    if full.window_length is None:
        found["dllm_block_length"] = full.block_length
    else:
        found["dllm_window_length"] = full.window_length
    return found | {f"dllm_{name}": value for name, value in full.policy_options.items() if value is not None}


def sweeps(checkpoint: str) -> list[Sweep]:
    """Those that the checkpoint can have."""
    return [s for s in SWEEPS if explicit(s.settings, checkpoint) is not None]
