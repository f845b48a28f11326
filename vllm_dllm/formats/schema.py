"""JSON schemas as regexes: every word is valid JSON, and valid under the schema.

outlines_core can do this too, but passes over what it does not know (bounds, uniqueItems, required names without a
schema) and joins the parts of an allOf one behind the other: its words may break the schema. Here what is not honoured
is refused by name. Objects have their properties in the schema's order and no others; the same words otherwise.
"""

import json
from collections.abc import Mapping
from typing import Any

from vllm_dllm.formats.combining import check_apart, merged, target, type_of
from vllm_dllm.formats.keywords import ASSERTING, EXCLUSIVE, HONOURED, REFUSED, TYPES, refusal
from vllm_dllm.formats.numbers import NONE, NUMBER, any_of, integers, numbers
from vllm_dllm.formats.patterns import CHARACTER, in_json, literal
from vllm_dllm.options import SettingError

MOST = 2_000_000  # characters of a regex
ANY_DEPTH = 1  # how deep values are nested that may be anything
TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?"
ZONE = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
DATE = (
    "[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|"
    "02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
LABEL = "[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMATS = {
    "date": DATE,
    "time": TIME + ZONE,
    "date-time": f"{DATE}T{TIME}{ZONE}",
    "uuid": "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
    "email": rf"[a-z0-9_]+(?:[.+-][a-z0-9_]+)*@{LABEL}(?:\.{LABEL})*\.[a-z]{{2,10}}",
    "hostname": rf"{LABEL}(?:\.{LABEL})*",
    "ipv4": rf"(?:{BYTE}\.){{3}}{BYTE}",
    "uri": rf"https?://{LABEL}(?:\.{LABEL})*(?::[1-9][0-9]{{0,3}})?(?:/[A-Za-z0-9._~-]*)*(?:\?[A-Za-z0-9._~=&-]*)?",
}


def regex_of(schema: str, whitespace: str = "[ ]?") -> str:
    """The regex of a schema's JSON text. `whitespace`: a regex of what may stand between two tokens of JSON.

    Raises SettingError.
    """
    try:
        parsed = json.loads(schema)
    except (ValueError, RecursionError):
        raise refusal("json", schema, "the JSON text of a schema") from None
    if not isinstance(parsed, dict | bool):
        raise refusal("json", schema, "a schema")
    try:
        return _Schema(parsed, whitespace).regex(parsed, ())
    except (AttributeError, TypeError, KeyError, ValueError) as e:
        if isinstance(e, SettingError):
            raise
        raise refusal("json", schema, f"a JSON schema ({type(e).__name__}: {e})") from e


class _Schema:
    """One schema, as a whole: references lead into it."""

    def __init__(self, root: Any, whitespace: str):
        self.root = root
        self.space = whitespace
        self.any = self._anything(ANY_DEPTH)

    def _anything(self, depth: int) -> str:
        """Any value, nested so deep."""
        plain = [f'"{CHARACTER}*"', NUMBER, "true", "false", "null"]
        if depth:
            inner = self._anything(depth - 1)
            plain += [self._array_of(inner, 0, None), self._map_of(inner)]
        return any_of(plain)

    def regex(self, schema: Any, within: tuple[str, ...]) -> str:
        """Of one subschema; `within` are the references that lead to it."""
        found = self._regex(schema, within)
        if len(found) > MOST:
            raise SettingError(
                f"a schema whose regex has more than {MOST} characters is not allowed: it must be smaller", "json"
            )
        return found

    def _regex(self, schema: Any, within: tuple[str, ...]) -> str:
        if schema is True or schema == {}:
            return self.any
        if schema is False:
            return NONE
        if not isinstance(schema, dict):
            raise refusal("a subschema", schema, "an object or a boolean")
        for word in REFUSED:
            if word in schema:
                raise refusal(word, schema[word], "left out, because it is not honoured")
        for word in ("$ref", "allOf", "anyOf", "oneOf"):
            if word in schema:
                return self._combined(word, schema, within)
        if "const" in schema or "enum" in schema:
            return self._values(schema)
        kinds = schema.get("type") or self._kinds_of(schema)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        for kind in kinds:
            if kind not in TYPES:
                raise refusal("type", kind, f"one of {', '.join(TYPES)}")
        if "number" in kinds:
            kinds = [kind for kind in kinds if kind != "integer"]
        return any_of([getattr(self, f"_{kind}")(schema, within) for kind in kinds])

    @staticmethod
    def _kinds_of(schema: Mapping[str, Any]) -> list[str]:
        """The types that a schema without a type speaks of."""
        found = [kind for kind in TYPES if kind != "integer" and any(word in schema for word in HONOURED[kind])]
        return found or list(TYPES)

    # ---- combined ----

    def _combined(self, word: str, schema: dict[str, Any], within: tuple[str, ...]) -> str:
        if word == "$ref":
            return self.regex(*self._followed(schema, within))
        rest = {k: v for k, v in schema.items() if k != word and k in ASSERTING}
        parts = schema[word]
        if not isinstance(parts, list) or not parts:
            raise refusal(word, parts, "a list of schemas")
        if word == "allOf":
            every: Any = rest
            for part in parts:
                if isinstance(part, dict) and "$ref" in part:
                    part, within = self._followed(part, within)
                every = merged(part, every, word)
            return self.regex(every, within)
        if word == "oneOf":
            check_apart(self.root, parts)
        return any_of([self.regex(merged(part, rest, word), within) for part in parts])

    def _followed(self, part: dict[str, Any], within: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
        """What a reference leads to, and the references that lead there."""
        reference = part["$ref"]
        if reference in within:
            raise refusal(
                "$ref",
                reference,
                "no part of itself, because a recursive schema is no regular language: write the levels out that are needed",
            )
        rest = {k: v for k, v in part.items() if k != "$ref" and k in ASSERTING}
        return merged(target(self.root, reference), rest, "$ref"), (*within, reference)

    # ---- values ----

    def _values(self, schema: Mapping[str, Any]) -> str:
        kinds = schema.get("type", list(TYPES))
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        others = sorted(k for k in schema if k in ASSERTING and k not in ("enum", "const", "type"))
        if others:
            raise refusal(others[0], schema[others[0]], "left out beside enum and const")
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        if "const" in schema and "enum" in schema:
            values = [v for v in values if json.dumps(v) == json.dumps(schema["const"])]
        kept = [v for v in values if type_of(v) in kinds or (type_of(v) == "integer" and "number" in kinds)]
        if not kept:
            raise refusal("enum", values, f"values of type {' or '.join(sorted(kinds))}")
        return any_of([self._value(v) for v in kept])

    def _value(self, value: Any) -> str:
        space = self.space
        if isinstance(value, dict):
            members = [f"{_text(k)}{space}:{space}{self._value(v)}" for k, v in value.items()]
            return rf"\{{{space}{f'{space},{space}'.join(members)}{space}\}}"
        if isinstance(value, list):
            return rf"\[{space}{f'{space},{space}'.join(map(self._value, value))}{space}\]"
        return literal(json.dumps(value, ensure_ascii=False, allow_nan=False))

    # ---- types ----

    def _boolean(self, schema: Any, within: Any) -> str:
        return "(?:true|false)"

    def _null(self, schema: Any, within: Any) -> str:
        return "null"

    def _string(self, schema: Mapping[str, Any], within: Any) -> str:
        given = [word for word in ("pattern", "format") if word in schema]
        bounds = _bounds(schema, "minLength", "maxLength")
        if given and (len(given) > 1 or bounds != (0, None)):
            raise refusal(given[0], schema[given[0]], "alone, without format, minLength and maxLength")
        if "format" in schema:
            if schema["format"] not in FORMATS:
                raise refusal("format", schema["format"], f"one of {', '.join(FORMATS)}")
            return f'"{FORMATS[schema["format"]]}"'
        if "pattern" in schema:
            try:
                return f'"{in_json(schema["pattern"])}"'
            except ValueError as e:
                raise refusal("pattern", schema["pattern"], f"a regex that strings can be held to: {e}") from None
        low, high = bounds
        return f'"{CHARACTER}{{{low},{"" if high is None else high}}}"' if bounds != (0, None) else f'"{CHARACTER}*"'

    def _integer(self, schema: Mapping[str, Any], within: Any) -> str:
        low, high = _interval(schema, whole=True)
        return integers(low, high)

    def _number(self, schema: Mapping[str, Any], within: Any) -> str:
        low, high = _interval(schema, whole=False)
        if low is None and high is None:
            return NUMBER
        without = [
            bound is not None and schema.get(key) == bound for key, bound in zip(EXCLUSIVE, (low, high), strict=True)
        ]
        return numbers(low, high, *without)

    def _array(self, schema: Mapping[str, Any], within: tuple[str, ...]) -> str:
        low, high = _bounds(schema, "minItems", "maxItems")
        first = schema.get("prefixItems", [])
        if schema.get("uniqueItems") and not (high is not None and high < 2):
            raise refusal("uniqueItems", True, "left out, because it is not honoured")
        rest = schema.get("items", schema.get("unevaluatedItems", True))
        if rest is False:
            high = len(first) if high is None else min(high, len(first))
        inner = self.any if rest in (True, False) else self.regex(rest, within)
        items = [self.regex(part, within) for part in first]
        if not items:
            return self._array_of(inner, low, high)
        space, comma = self.space, f"{self.space},{self.space}"
        low = max(low, min(len(items), high or len(items)))  # all that are described are there
        items = items[: high if high is not None else len(items)]
        tail = (
            ""
            if high == len(items)
            else f"(?:{comma}{inner}){{{low - len(items)},{'' if high is None else high - len(items)}}}"
        )
        return rf"\[{space}{comma.join(items)}{tail}{space}\]"

    def _array_of(self, inner: str, low: int, high: int | None) -> str:
        space = self.space
        if high is not None and high < low:
            return NONE
        if high == 0:
            return rf"\[{space}\]"
        more = f"(?:{space},{space}{inner}){{{max(0, low - 1)},{'' if high is None else high - 1}}}"
        return rf"\[{space}(?:{inner}{more}{space}){'' if low else '?'}\]"

    def _map_of(self, inner: str) -> str:
        """An object of any names."""
        space = self.space
        member = f'"{CHARACTER}*"{space}:{space}{inner}'
        return rf"\{{{space}(?:{member}(?:{space},{space}{member})*{space})?\}}"

    def _object(self, schema: Mapping[str, Any], within: tuple[str, ...]) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
        if not properties and not required and others is not False:
            return self._map_of(self.any if others is True else self.regex(others, within))
        if missing := [name for name in required if name not in properties]:
            if others is False:
                raise refusal("required", missing[0], "the name of a property, where there are no others")
            properties = properties | {name: others for name in missing}
        space = self.space
        members = [
            (f"{_text(name)}{space}:{space}{self.regex(part, within)}", name in required)
            for name, part in properties.items()
        ]
        return rf"\{{{space}{self._members(members)}\}}"

    def _members(self, members: list[tuple[str, bool]]) -> str:
        """Some of these in their order, those that are required all."""
        space = self.space
        comma = f"{space},{space}"
        if not members:
            return ""
        needed = next((i for i, (_, required) in enumerate(members) if required), None)

        def behind(start: int) -> str:
            return "".join(f"{comma}{m}" if required else f"(?:{comma}{m})?" for m, required in members[start:])

        if needed is not None:
            before = "".join(f"(?:{m}{comma})?" for m, _ in members[:needed])
            return f"{before}{members[needed][0]}{behind(needed + 1)}{space}"
        return f"(?:{any_of([f'{m}{behind(i + 1)}' for i, (m, _) in enumerate(members)])}{space})?"


def _text(name: str) -> str:
    return literal(json.dumps(name, ensure_ascii=False))


def _bounds(schema: Mapping[str, Any], least: str, most: str) -> tuple[int, int | None]:
    for name in (least, most):
        value = schema.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise refusal(name, value, "a whole number from 0 on")
    low, high = schema.get(least, 0), schema.get(most)
    if high is not None and high < low:
        raise refusal(most, high, f"at least {low}, {least}")
    return low, high


def _interval(schema: Mapping[str, Any], whole: bool) -> tuple[int | None, int | None]:
    """The bounds of whole numbers (`whole`), or of numbers, which may not belong to them."""
    if schema.get("multipleOf", 1) != 1 or ("multipleOf" in schema and not whole):
        raise refusal("multipleOf", schema["multipleOf"], "left out, because it is not honoured")
    found: list[int | None] = []
    for keys, sign in ((("minimum", EXCLUSIVE[0]), 1), (("maximum", EXCLUSIVE[1]), -1)):
        bounds = []
        for key in keys:
            value = schema.get(key)
            if value is None:
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or value != int(value)
                or abs(value) > 1e15
            ):
                raise refusal(key, value, "a whole number from -1e15 to 1e15")
            bounds.append(int(value) + (sign if whole and key in EXCLUSIVE else 0))
        found.append(None if not bounds else max(bounds) if sign > 0 else min(bounds))
    low, high = found
    if low is not None and high is not None and low > high:
        raise refusal("maximum", high, f"at least {low}")
    return low, high
