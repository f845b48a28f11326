"""JSON schemas as regexes: random words of them are JSON and valid, and what is not honoured is refused by name."""

import json
import random

import jsonschema
import numpy as np
import pytest
from format_cases import SCHEMAS
from hypothesis import HealthCheck, given, settings

from vllm_dllm.formats.asked import Asked
from vllm_dllm.formats.language import DEAD, ByteAutomaton, byte_automaton
from vllm_dllm.options import SettingError

LEFT = {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind", "x"]}
RIGHT = {"type": "object", "properties": {"kind": {"const": "b"}, "y": {"type": "string"}}, "required": ["kind", "y"]}
INTERVALS = [
    (0, 5),
    (-3, 12),
    (17, 1234),
    (-1234, -17),
    (99, 100),
    (0, 0),
    (-1, 0),
    (1000, 1001),
    (None, -5),
    (100, None),
]
VALID = [
    {"type": "object"},
    True,
    {},
    {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
    {"properties": {"a": {"type": "integer"}, "b": {}, "c": {"type": "null"}}, "required": ["b"], "type": "object"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
    {"type": "array", "items": {"type": "null"}, "maxItems": 1, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    *[
        {"type": kind} | {k: v for k, v in (("minimum", low), ("maximum", high)) if v is not None}
        for kind in ("integer", "number")
        for low, high in INTERVALS
    ],
    *[
        {"type": kind} | bounds
        for kind in ("integer", "number")
        for bounds in (
            {"exclusiveMinimum": 0},
            {"exclusiveMinimum": 0, "exclusiveMaximum": 2},
            {"exclusiveMinimum": -3, "maximum": -2},
            {"exclusiveMaximum": 0, "minimum": -15},
        )
    ],
    *[
        {"type": "string", "pattern": pattern}
        for pattern in ("^a+$", "a", '^[^a-z]{2,3}\\d\\."\\\\$', r"^(ab|[\w-]+)\s?x?$", r"[^\d\s]$", "^.$")
    ],
    {"type": "string", "minLength": 2, "maxLength": 3},
    *[{"type": "string", "format": name} for name in ("date", "date-time", "uuid", "email", "hostname", "ipv4", "uri")],
    {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "x"},
    {"anyOf": [{"minimum": 3}, {"maximum": -3}], "type": "integer"},
    {"oneOf": [LEFT, RIGHT], "discriminator": {"propertyName": "kind"}},
    {"oneOf": [{"type": "integer"}, {"type": "null"}]},
    {"allOf": [{"type": "integer", "maximum": 9}, {"minimum": 3}]},
    {"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "string"}}, "title": "t"},
    {"type": ["string", "null"]},
    {"enum": [1, 'a"é', None, {"x": [1, {"y": 2}]}, 1.5]},
    {"enum": [1, "a"], "type": "string"},
    {"const": "x.y"},
    {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"n": {"$ref": "#/$defs/B"}}}, "B": {"type": "integer"}}},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {'é"\\': {"type": "integer"}}, "required": ['é"\\']},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["z"]},
]
REFUSED = {
    "{": "JSON text",
    "[]": "a schema",
    '{"type": "strng"}': "type=strng",
    '{"properties": 5}': "a JSON schema",
    '{"type": "integer", "multipleOf": 3}': "multipleOf=3",
    '{"not": {}}': "not=",
    '{"oneOf": [{"type": "integer"}, {"type": "number"}]}': "anyOf allows more",
    '{"oneOf": [{"properties": {"a": {}}}, {"type": "object"}]}': "anyOf allows more",
    '{"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"n": {"$ref": "#/$defs/A"}}}}}': "recursive",
    '{"$ref": "#"}': "recursive",
    '{"allOf": [{"$ref": "#"}]}': "recursive",
    '{"$ref": "http://x"}': "into the schema itself",
    '{"$ref": "#/x/y"}': "leads somewhere",
    '{"type": "string", "format": "zip"}': "format=zip",
    '{"type": "string", "pattern": "(?=a)"}': "pattern=",
    '{"type": "string", "pattern": "^a$|^b$"}': "pattern=",
    '{"type": "array", "uniqueItems": true}': "uniqueItems",
    '{"minimum": 0.5, "type": "number"}': "minimum=0.5",
    '{"type": "integer", "enum": ["a"]}': "enum=",
    '{"enum": [1], "minimum": 0}': "minimum=0",
    '{"required": ["a"], "additionalProperties": false}': "required=a",
    '{"type": "string", "minLength": -1}': "minLength=-1",
    '{"type": "string", "minLength": 3, "maxLength": 1}': "maxLength=1",
    '{"type": "integer", "minimum": 5, "maximum": 3}': "maximum=3",
}


def words(automaton: ByteAutomaton, count: int, rng: random.Random) -> list[bytes]:
    """Random walks; beyond a random length along a shortest way to a word's end."""
    steps, accepting = automaton.steps, automaton.accepting
    source, byte = np.nonzero(steps != DEAD)
    left = np.where(accepting, 0, 1 << 30)
    while True:
        shorter = left.copy()
        np.minimum.at(shorter, source, left[steps[source, byte]] + 1)
        if (shorter == left).all():
            break
        left = shorter
    found = []
    for _ in range(count):
        state, word, length = 0, b"", rng.choice([0, 5, 20, 60])
        while not (accepting[state] and (len(word) >= length or rng.random() < 0.1)):
            ways = np.flatnonzero(steps[state] != DEAD)
            if not len(ways):
                break
            if len(word) >= length:
                distances = left[steps[state, ways]]
                ways = ways[distances == distances.min()]
            word += bytes([rng.choice(ways.tolist())])
            state = steps[state, word[-1]]
        found.append(word)
    return found


def check(schema, count: int) -> None:
    automaton = byte_automaton(Asked("json", json.dumps(schema)).language())
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for word in words(automaton, count, random.Random(0)):
        checker.validate(json.loads(word))


@pytest.mark.parametrize("schema", VALID, ids=lambda s: json.dumps(s)[:60])
def test_every_word_is_valid(schema):
    check(schema, 60)


@given(SCHEMAS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_schemas_as_they_come(schema):
    check(schema, 10)


@pytest.mark.parametrize("schema", REFUSED, ids=lambda s: s[:60])
def test_what_is_not_honoured_is_refused_by_name(schema):
    with pytest.raises(SettingError) as refusal:
        Asked("json", schema).language()
    assert REFUSED[schema] in str(refusal.value)


def test_a_schema_that_grows_without_bound():
    levels = {f"l{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/l{i + 1}"}] * 9} for i in range(12)}
    with pytest.raises(SettingError, match="must be smaller"):
        Asked("json", json.dumps({"$ref": "#/$defs/l0", "$defs": levels | {"l12": {"type": "null"}}})).language()


def test_whitespace():
    schema = '{"type": "array", "items": {"type": "null"}, "minItems": 2}'
    tight = byte_automaton(Asked("json", schema, "").language())
    assert words(tight, 5, random.Random(0))[0].startswith(b"[null,null")
    byte_automaton(Asked("json", schema, r"[ \n]{0,2}").language())
    for pattern in ("x", r"\s", "."):
        with pytest.raises(SettingError, match="whitespace_pattern"):
            Asked("json", schema, pattern).language()
