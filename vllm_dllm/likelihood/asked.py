"""What is asked about pairs of prompt and target, checked, and what it takes to answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vllm_dllm.likelihood.draws import draw
from vllm_dllm.likelihood.passes import Chain, Masks, Passes
from vllm_dllm.likelihood.result import Likelihood, of_chain, of_draws
from vllm_dllm.options import SettingError

ESTIMATORS = ("chain", "mc")
MC_NUM, STRATA = 128, 16  # LLaDA's `get_log_likelihood.py`
MOST = 1 << 16  # draws for one pair: more are a mistake


@dataclass(frozen=True)
class Asked:
    """`masks`, `mc_num`, `strata` and `seed` are the `mc` estimator's; None: not given. Raises SettingError."""

    estimator: str = "chain"
    masks: Sequence[Sequence[Sequence[int]]] | None = None  # of each pair lists of 0 and 1 over its target
    mc_num: int | None = None  # draws for each pair
    strata: int | None = None  # of which so many at a time are spread over how much is masked
    seed: int | None = None
    cfg_scale: float | None = None  # None: the server's dllm_cfg_scale
    greedy: bool = False

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise _refusal("estimator", self.estimator, f"one of {', '.join(ESTIMATORS)}")
        own: dict[str, Any] = {"masks": self.masks, "mc_num": self.mc_num, "strata": self.strata, "seed": self.seed}
        given = {name: value for name, value in own.items() if value is not None}
        if self.estimator == "chain" and given:
            name = next(iter(given))
            raise SettingError(
                f"{name} is not allowed with estimator='chain', which draws nothing: it must be left out", name
            )
        if self.masks is not None and len(given) > 1:
            name = next(name for name in given if name != "masks")
            raise SettingError(f"{name}={given[name]!r} is not allowed with masks: nothing is drawn beside them", name)
        for name in ("mc_num", "strata"):
            if name in given and not (_is_whole(given[name]) and 1 <= given[name] <= MOST):
                raise _refusal(name, given[name], f"a whole number from 1 to {MOST}")
        if "seed" in given and not (_is_whole(self.seed) and 0 <= given["seed"] < 2**64):
            raise _refusal("seed", self.seed, "a whole number from 0 to 2**64 - 1")
        if not isinstance(self.greedy, bool):
            raise _refusal("greedy", self.greedy, "true or false")
        if self.draws % self.batch:
            raise SettingError(
                f"strata={self.strata} is not allowed with mc_num={self.draws}: it must divide it", "strata"
            )

    @property
    def draws(self) -> int:
        return MC_NUM if self.mc_num is None else self.mc_num

    @property
    def batch(self) -> int:
        """Draws that belong together: as asked, else the most up to the authors' that divide their number."""
        if self.strata is not None:
            return self.strata
        return next(n for n in range(min(STRATA, self.draws), 0, -1) if self.draws % n == 0)

    def check_attention(self, attention: str) -> None:
        """Raise SettingError for an estimator that says nothing of a model whose attention is causal by blocks: masks in
        its finished blocks are what it never sees, neither in training nor when it decodes."""
        if self.estimator != "chain" and attention == "blocks":
            raise _refusal(
                "estimator",
                self.estimator,
                "chain with a model whose attention is causal by blocks, because such a model never sees masks in blocks "
                "before the last",
            )

    def plan(self, i: int, prompt: Sequence[int], target: Sequence[int], kind: str) -> "Plan":
        """What pair `i` takes; `kind` says how the model's authors draw masks (draws.py). Raises SettingError."""
        length = len(target)
        if self.estimator == "chain":
            return Plan(Chain(0, length, length))
        if self.masks is not None:
            masks = _checked_mask(self.masks[i], f"masks[{i}]", length)
            return Plan(Masks(masks), length / masks.sum(1), 1)
        if kind == "times" and length < 2:
            raise SettingError(
                f"pairs[{i}] with a target of 1 token is not allowed with estimator='mc' of a Dream model, whose authors "
                "never mask the last token of a text: the target must end in one that need not be predicted (the end token)",
                "pairs",
            )
        # a pair's own draws, whatever else is asked with it
        rng = np.random.default_rng([self.seed or 0, length, *prompt, *target])
        found = draw(kind, length, self.draws, self.batch, rng)
        needed = np.count_nonzero(found.masks, axis=1) > 0
        return Plan(Masks(found.masks[needed]), found.weights, self.batch, needed)

    def drawn(self, targets: Sequence[Sequence[int]]) -> int:
        """How many positions of masks are to be drawn for these targets: each takes a byte until it is scored."""
        return 0 if self.estimator == "chain" or self.masks is not None else self.draws * sum(map(len, targets))

    def check_count(self, pairs: int) -> None:
        """Raise SettingError unless there are masks for each of so many pairs."""
        if self.masks is not None and (not _is_list(self.masks) or len(self.masks) != pairs):
            count = f"{len(self.masks)} lists" if _is_list(self.masks) else repr(self.masks)[:80]
            raise SettingError(
                f"masks with {count} is not allowed: it must have one list for each of the {pairs} pairs"
            )


class Plan(NamedTuple):
    """How one pair's likelihood is found."""

    passes: Passes
    weights: np.ndarray | None = None  # of each draw, with `mc`
    strata: int = 1
    needed: np.ndarray | None = None  # bool: the draws that mask something, of which there is a pass; None: all do

    def result(self, scores: np.ndarray, greedy: bool | None) -> Likelihood:
        """Of each pass's sum of log probabilities, float64."""
        if self.weights is None:
            return of_chain(scores, greedy)
        if self.needed is not None:
            read, scores = scores, np.zeros(len(self.needed))
            scores[self.needed] = read
        return of_draws(scores, self.weights, self.strata, greedy)


def _checked_mask(rows: Any, name: str, length: int) -> np.ndarray:
    """bool [masks, length]."""
    if not _is_list(rows) or not len(rows):
        raise _refusal(name, rows, "a list of at least one mask", "masks")
    for j, row in enumerate(rows):
        if not _is_list(row) or len(row) != length or any(v not in (0, 1) for v in row):
            allowed = f"a list of {length} numbers 0 or 1, one for each token of the target"
            raise _refusal(f"{name}[{j}]", row, allowed, "masks")
        if not any(row):
            raise _refusal(f"{name}[{j}]", row, "a mask with at least one 1", "masks")
    return np.asarray(rows, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refusal(name: str, value: Any, allowed: str, parameter: str | None = None) -> SettingError:
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    return SettingError(f"{name}={shown} is not allowed: it must be {allowed}", parameter or name)
