"""What a setting is: its name, type, bounds, default and help, and how a value is checked."""

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Option", "SettingError"]  # what other packages may use


class SettingError(ValueError):
    """A setting or request that is refused. The message names the setting, the value and what is allowed.

    `parameter` is the name alone, for `param` in an error of the OpenAI API: as given, else what the message begins with.
    """

    def __init__(self, message: str, parameter: str | None = None):
        super().__init__(message)
        begins = re.match(r"[\w.]+(?==)|dllm_\w+", message)
        self.parameter = parameter or (begins and begins.group())


@dataclass(frozen=True)
class Option:
    """One `dllm_*` setting.

    `name` is without the prefix: option `block_length` is `dllm_block_length` in `additional_config`
    and in a request, `--dllm-block-length` on the command line.
    """

    name: str
    type: type  # int, float, str, bool, or list (of floats)
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    open_low: bool = False  # the lower bound itself is not allowed
    choices: tuple[str, ...] | None = None
    server_only: bool = False
    request_only: bool = False
    attention: tuple[str, ...] = ("full", "blocks")  # of the models it is for, as a policy has it
    # what it is read for, in words and as a question to a request's `Choice` (catalogue.py); for an option of a policy
    # or a rule besides that it was chosen
    read_by: str = ""
    when: Callable[[Any], bool] | None = None

    @property
    def key(self) -> str:
        return f"dllm_{self.name}"

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")

    @property
    def allowed(self) -> str:
        """In words, for a refusal and for `--help`."""
        if self.choices is not None:
            return "one of " + ", ".join(self.choices)
        kind = {
            int: "a whole number",
            float: "a number",
            str: "a text",
            bool: "true or false",
            list: "a list of numbers",
        }[self.type]
        if self.low is not None and self.high is not None:
            return f"{kind} {'above' if self.open_low else 'from'} {self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"{kind} {'above' if self.open_low else 'of at least'} {self.low:g}"
        return kind

    def check(self, value: Any) -> Any:
        """`value` as this option's type.

        Raises SettingError for a wrong type, a NaN or infinity, and anything out of bounds.
        """
        if self.type is list:
            if not isinstance(value, list | tuple) or not all(_is_number(v) and self._within(v) for v in value):
                raise self.refusal(value)
            return [float(v) for v in value]
        if self.type is float:
            good = _is_number(value)
        elif self.type is int:
            good = isinstance(value, int) and not isinstance(value, bool)
        else:
            if self.type is bool and type(value) is int and value in (0, 1):  # what vllm_xargs makes of true and false
                value = bool(value)
            good = isinstance(value, self.type)
        if not good:
            raise self.refusal(value)
        if self.choices is not None and value not in self.choices:
            raise self.refusal(value)
        if not self._within(value):
            raise self.refusal(value)
        return float(value) if self.type is float else value

    def _within(self, value: Any) -> bool:
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        return self.high is None or value <= self.high

    def refusal(self, value: Any) -> SettingError:
        return SettingError(f"{self.key}={value!r} is not allowed: it must be {self.allowed}")


def _is_number(value: Any) -> bool:
    # False for a NaN, an infinity, and a whole number that no float holds
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def names(options: Iterable[Option]) -> str:
    """The keys of `options`, for a refusal."""
    return ", ".join(o.key for o in options) or "none"
