"""Schemas that are put together: references, what is said twice, and alternatives of which one alone may hold."""

import json
from collections.abc import Sequence
from typing import Any

from vllm_dllm.formats.keywords import ASSERTING, TYPES, refusal


def target(root: Any, reference: Any) -> Any:
    """The part of the `root` schema that a reference names."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        raise refusal("$ref", reference, "one into the schema itself: #/$defs/...")
    found = root
    for step in reference.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(step) if isinstance(found, list) else step]
        except (KeyError, IndexError, ValueError, TypeError):
            raise refusal("$ref", reference, "one that leads somewhere") from None
    return found


def merged(part: Any, rest: dict[str, Any], word: str) -> Any:
    """Both at once: what a schema says beside a reference or beside alternatives."""
    if not rest or part is False:
        return part
    if part is True:
        return rest
    if not isinstance(part, dict):
        raise refusal("a subschema", part, "an object or a boolean")
    both = {k: v for k, v in part.items() if k in ASSERTING}
    for key, value in rest.items():
        if key not in both or both[key] == value:
            both[key] = value
        elif key == "required":
            both[key] = list(dict.fromkeys([*both[key], *value]))
        elif key == "properties" and not set(both[key]) & set(value):
            both[key] = both[key] | value
        elif key in ("minimum", "minLength", "minItems"):
            both[key] = max(both[key], value)
        elif key in ("maximum", "maxLength", "maxItems"):
            both[key] = min(both[key], value)
        else:
            raise refusal(key, value, f"in one place: beside {word} it says two things")
    return both


def check_apart(root: Any, parts: Sequence[Any]) -> None:
    """Raise SettingError unless no value can be valid under two of the schemas."""
    described = [_described(root, part) for part in parts]
    for i, (kinds, values) in enumerate(described):
        for others, other_values in described[:i]:
            apart = not kinds & others or any(
                not values[key] & other_values[key] for key in set(values) & set(other_values)
            )
            if not apart:
                raise refusal(
                    "oneOf",
                    parts,
                    "alternatives of other types, or objects told apart by a required const: anyOf allows more",
                )


def _described(root: Any, part: Any) -> tuple[set[str], dict[str, set[str]]]:
    """A schema's types, and of properties that must be there the values that they may have."""
    seen: tuple[str, ...] = ()
    while isinstance(part, dict) and "$ref" in part and part["$ref"] not in seen:
        seen = (*seen, part["$ref"])
        part = target(root, part["$ref"])
    if not isinstance(part, dict):
        return set(TYPES), {}
    listed = part.get("enum", [part["const"]] if "const" in part else None)
    if listed is not None:
        return {type_of(v) for v in listed}, {"": {json.dumps(v, sort_keys=True) for v in listed}}
    kinds = part.get("type", TYPES)
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if "number" in kinds:
        kinds.add("integer")
    values = {}
    for name in part.get("required", ()):
        inner = part.get("properties", {}).get(name, {})
        if isinstance(inner, dict) and ("const" in inner or "enum" in inner):
            values[name] = {json.dumps(v, sort_keys=True) for v in inner.get("enum", [inner.get("const")])}
    return kinds, values if kinds == {"object"} else {}


def type_of(value: Any) -> str:
    """Of a value of JSON: one of TYPES, the narrower of two."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    kinds = {str: "string", float: "number", list: "array", dict: "object", type(None): "null"}
    return kinds[type(value)]
