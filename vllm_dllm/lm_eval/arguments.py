"""What `--model_args` may say: ours, a `dllm_*` setting, a sampling parameter, or an argument of vLLM's engine."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vllm_dllm.catalogue import GEN_LENGTH, options
from vllm_dllm.likelihood.asked import ESTIMATORS, Asked
from vllm_dllm.options import SettingError

# what vLLM has names for, and both an engine and a server take
SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "ignore_eos",
)
# what the harness adds for models that batch by themselves
OF_THE_HARNESS = ("batch_size", "max_batch_size", "device")


@dataclass(frozen=True)
class Arguments:
    """`--model_args`, checked. Where a comment says no more, see docs/evaluation.md."""

    pretrained: str | None = None  # the engine's model; of a server's model, where its tokenizer is
    base_url: str | None = None  # of a running server
    model: str | None = None  # the server's name of it; None: its first
    tokenizer: str | None = None
    num_concurrent: int = 64  # requests that wait for a server at once

    estimator: str | None = None  # None: `mc`; of a model whose attention is causal by blocks the only one, `chain`
    mc_num: int = 128  # draws a target; LLaDA's and Dream's scripts have 128
    strata: int | None = None  # draws that are spread evenly; None: the most up to 32 that divide mc_num
    seed: int = 1234  # LLaDA's script
    greedy: bool = False  # ask whether greedy decoding gives the target (LLaDA's is_check_greedy)

    add_bos_token: bool = False
    append_eos: bool | None = None  # behind every target; None: as the model's authors do (Dream)
    escape_until: bool = False  # Dream's: answers are not cut at the task's stop strings

    settings: dict[str, Any] = field(default_factory=dict)  # dllm_*
    sampling: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)  # vLLM's

    @property
    def gen_length(self) -> int | None:
        """Every answer's length, where it is given: it counts before the task's `max_gen_toks`."""
        return self.settings.get(GEN_LENGTH.key)

    def asked(self, attention: str = "full") -> dict[str, Any]:
        """What to ask a pair's likelihood by, of a model of this attention."""
        estimator = self.estimator or ("mc" if attention == "full" else "chain")
        asked: dict[str, Any] = {"estimator": estimator, "greedy": self.greedy}
        if estimator == "mc":
            strata = self.strata or max(n for n in range(1, 33) if self.mc_num % n == 0)
            asked |= {"mc_num": self.mc_num, "strata": strata, "seed": self.seed}
        return asked


OURS = {f.name: f for f in dataclasses.fields(Arguments) if f.name not in ("settings", "sampling", "engine")}
LEAST = {"mc_num": 1, "strata": 1, "num_concurrent": 1}


def read(given: Mapping[str, Any]) -> Arguments:
    """`--model_args` as the harness parsed them. Raises SettingError."""
    found: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    engine: dict[str, Any] = {}
    for name, value in given.items():
        if name in OF_THE_HARNESS or value is None:
            continue  # the engine batches, wherever it runs
        key = name if name.startswith("dllm_") else f"dllm_{name}"
        if name in OURS:
            found[name] = _checked(name, value)
            if name in ("mc_num", "strata") and "estimator" not in given:
                found["estimator"] = "mc"
        elif key in options():
            settings[key] = _setting(key, value)
        elif name in SAMPLING:
            sampling[name] = value
        else:
            engine[name] = value
    arguments = Arguments(**found, settings=settings, sampling=sampling, engine=engine)
    _check_place(arguments, found)
    for name in ("mc_num", "strata"):
        if arguments.estimator == "chain" and name in found:
            raise SettingError(f"{name}={found[name]!r} is not allowed with estimator=chain: it is for estimator=mc")
    Asked(**arguments.asked())
    return arguments


def _checked(name: str, value: Any) -> Any:
    """A value of ours, of its type and within its bounds."""
    kind = str(OURS[name].type)
    if "bool" in kind:
        good, allowed = isinstance(value, bool), "true or false"
    elif "int" in kind:
        least = LEAST.get(name)
        good = isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
        allowed = "a whole number" + ("" if least is None else f" of at least {least}")
    elif name == "estimator":
        good, allowed = value in ESTIMATORS, "one of " + ", ".join(ESTIMATORS)
    else:
        value = str(value)  # a name that looks like a number
        good, allowed = bool(value), "a text"
    if not good:
        raise SettingError(f"{name}={value!r} is not allowed: it must be {allowed}")
    return value


def _setting(key: str, value: Any) -> Any:
    option = options()[key]
    if option.request_only:
        raise SettingError(f"{key}={value!r} is not allowed in --model_args: each request has its own")
    return option.check(value)


def _check_place(arguments: Arguments, found: Mapping[str, Any]) -> None:
    """Raise SettingError for what is missing, and for what belongs to a server where there is none, or the reverse."""
    if arguments.base_url is None:
        if arguments.pretrained is None:
            raise SettingError(
                "pretrained and base_url are missing: one of them must be in --model_args, the model to load or the address "
                "of a running server"
            )
        for name in ("model", "num_concurrent"):
            if name in found:
                raise SettingError(
                    f"{name}={found[name]!r} is not allowed without base_url: it is for a running server"
                )
        _check_engine(arguments)
        return
    if arguments.engine:
        name, value = next(iter(arguments.engine.items()))
        raise SettingError(f"{name}={value!r} is not allowed with base_url: it is neither ours nor a request's setting")
    for key, value in arguments.settings.items():
        if options()[key].server_only and key != GEN_LENGTH.key:
            raise SettingError(f"{key}={value!r} is not allowed with base_url: it is the server's setting")


def _check_engine(arguments: Arguments) -> None:
    """Raise SettingError for a name that nobody knows."""
    if not arguments.engine:
        return
    from vllm.engine.arg_utils import EngineArgs  # takes seconds

    known = {f.name for f in dataclasses.fields(EngineArgs)}
    for name, value in arguments.engine.items():
        if name not in known:
            raise SettingError(
                f"{name}={value!r} is not an argument: there are {', '.join(OURS)}, {', '.join(SAMPLING)}, the dllm_* "
                "settings, with or without the prefix, and vLLM's engine arguments"
            )
