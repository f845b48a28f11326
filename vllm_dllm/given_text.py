"""Given text: what a request's canvas holds from the start besides its prompt.

    prompt | N a m e :   m m m m m m ,   b o r n   m m m m . | suffix
            `----------------- dllm_template ---------------'  `- dllm_suffix

`dllm_template` is the whole response: strings and lists of token ids are given, a whole number is so many masked
positions. `dllm_suffix` is text behind the response, neither returned nor counted. Both are a request's own: strings
are turned into token ids where it arrives (validation.py), and travel on as such.
"""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_dllm.options import Option, SettingError


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_whole, value))


class TextOption(Option):
    """A setting that is text for the canvas."""

    def refusal(self, value: Any) -> SettingError:
        shown = textwrap.shorten(repr(value), 80)
        return SettingError(f"{self.key}={shown} is not allowed: it must be {self.allowed}")


class Template(TextOption):
    @property
    def allowed(self) -> str:
        return (
            "a list (or its JSON text) of given strings, given lists of token ids, and numbers of masked positions, "
            "whole and from 1 on"
        )

    def check(self, value: Any) -> list[str | int | list[int]]:
        parts = value
        if isinstance(value, str):  # vllm_xargs takes no list inside a list
            try:
                parts = json.loads(value)
            except ValueError:
                raise self.refusal(value) from None
        if not isinstance(parts, list | tuple) or not all(
            isinstance(p, str) or (_is_whole(p) and p > 0) or _are_ids(p) for p in parts
        ):
            raise self.refusal(value)
        if not any(map(_is_whole, parts)):
            shown = textwrap.shorten(repr(value), 80)
            raise SettingError(
                f"{self.key}={shown} is not allowed: it must have a masked position, as a whole number among its parts"
            )
        return [list(p) if isinstance(p, tuple) else p for p in parts]


class Suffix(TextOption):
    @property
    def allowed(self) -> str:
        return "a string or a list of token ids"

    def check(self, value: Any) -> str | list[int]:
        if not isinstance(value, str) and not _are_ids(value):
            raise self.refusal(value)
        return value if isinstance(value, str) else list(value)


TEMPLATE = Template(
    "template", list, None, "the response: given text, and numbers of masked positions between it", request_only=True
)
SUFFIX = Suffix(
    "suffix",
    str,
    None,
    "text behind the response, neither returned nor counted",
    request_only=True,
    attention=("full",),
)


@dataclass(frozen=True)
class GivenText:
    """A request's given text as token ids."""

    length: int | None = None  # the template's positions; None: no template
    response: Mapping[int, int] = field(default_factory=dict)  # its given tokens, by their places in the response
    suffix: Sequence[int] = ()

    def __bool__(self) -> bool:
        return bool(self.response or self.suffix)

    def at(self, start: int) -> dict[int, int]:
        """The response's given tokens by canvas position; the response begins at `start`."""
        return {start + i: token for i, token in self.response.items()}

    def check_ids(self, vocab_size: int, mask_id: int) -> None:
        """Raise SettingError for a token that the model has no embedding for, or that is its mask."""
        for option, ids in ((TEMPLATE, self.response.values()), (SUFFIX, self.suffix)):
            for token in ids:
                if not 0 <= token < vocab_size or token == mask_id:
                    raise SettingError(
                        f"{option.key} with token {token} is not allowed: a token id must be from 0 to {vocab_size - 1} "
                        f"and not {mask_id}, the mask's"
                    )


NO_TEXT = GivenText()


def with_token_ids(
    settings: Mapping[str, Any] | None, encode: Callable[[str], Sequence[int]] | None
) -> dict[str, Any] | None:
    """A request's settings, checked as far as they are text, with token ids in place of strings.

    Each string is encoded by itself, so that it never merges with what stands beside it. `encode` None: the server has
    no tokenizer. Raises SettingError.
    """
    if settings is None or (settings.get(TEMPLATE.key) is None and settings.get(SUFFIX.key) is None):
        return None if settings is None else dict(settings)

    def ids(option: Option, text: str) -> list[int]:
        if encode is None:
            raise SettingError(
                f"{option.key}={text!r} is not allowed: the server has no tokenizer (skip_tokenizer_init), so it must be "
                "token ids"
            )
        return list(encode(text))

    made = dict(settings)
    if (template := made.get(TEMPLATE.key)) is not None:
        parts = TEMPLATE.check(template)
        made[TEMPLATE.key] = [ids(TEMPLATE, p) if isinstance(p, str) else p for p in parts]
    if (suffix := made.get(SUFFIX.key)) is not None:
        suffix = SUFFIX.check(suffix)
        made[SUFFIX.key] = ids(SUFFIX, suffix) if isinstance(suffix, str) else suffix
    return made


def given_text(settings: Mapping[str, Any] | None) -> GivenText:
    """What `with_token_ids` has made of a request's settings."""
    settings = settings or {}
    template, suffix = settings.get(TEMPLATE.key), settings.get(SUFFIX.key)
    if template is None:
        return GivenText(suffix=suffix or ())
    length, response = 0, {}
    for part in template:
        if isinstance(part, int):
            length += part
        else:
            response.update(enumerate(part, start=length))
            length += len(part)
    return GivenText(length, response, suffix or ())
