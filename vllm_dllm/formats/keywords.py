"""The keywords of JSON schemas: those that are honoured, and how the others are refused."""

import json
from typing import Any

from vllm_dllm.options import SettingError

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
HONOURED = {
    "object": ("properties", "required", "additionalProperties", "unevaluatedProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "unevaluatedItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "boolean": (),
    "null": (),
}
HONOURED["number"] = HONOURED["integer"]
EXCLUSIVE = ("exclusiveMinimum", "exclusiveMaximum")
COMBINED = ("enum", "const", "anyOf", "oneOf", "allOf", "$ref")
# keywords that restrict values, and are not honoured
REFUSED = (
    *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "patternProperties"),
    *("propertyNames", "minProperties", "maxProperties", "contains", "minContains", "maxContains", "additionalItems"),
    *("$dynamicRef", "$recursiveRef", "extends", "disallow", "divisibleBy"),
)
ASSERTING = {*COMBINED, *REFUSED, "type", *(word for words in HONOURED.values() for word in words)}


def refusal(name: str, value: Any, allowed: str) -> SettingError:
    """What to raise where a schema's keyword has this value."""
    shown = value if isinstance(value, str) else json.dumps(value)
    return SettingError(f"{name}={shown[:80]} is not allowed in a JSON schema: it must be {allowed}", "json")
