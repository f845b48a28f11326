"""Formats and requests for them, drawn by hypothesis, and whether an answer is valid."""

import functools
import json
import re
from dataclasses import dataclass, field
from typing import Any

import jsonschema
import regex
from common import CHECKPOINTS
from hypothesis import strategies as st

from vllm_dllm.caching.registry import FULL
from vllm_dllm.formats.asked import Asked
from vllm_dllm.formats.build import Spelling, Vocabulary, vocabulary
from vllm_dllm.formats.helper import Built, Refused, built

CHARACTERS = "abcxyz019 .,:#"  # some of the model's
MODEL_LENGTH = 512

# ---- what is asked for ----


def _repeated(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    bounds = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda b: f"{{{b[0]},{b[0] + b[1]}}}")
    return st.tuples(inner, st.sampled_from(["*", "+", "?"]) | bounds).map(lambda p: f"(?:{p[0]}){p[1]}")


LITERALS = st.text(CHARACTERS, min_size=1, max_size=6).map(re.escape)
CLASSES = st.sampled_from(
    ["[a-z]", "[0-9]", "[^0-9]", "[abc]", ".", r"\w", r"\d", "[A-Z]", r"[ -~]", "(yes|no|yesterday)"]
)
REGEXES = st.recursive(
    LITERALS | CLASSES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        _repeated(inner),
    ),
    max_leaves=6,
)
CHOICES = st.lists(st.text(CHARACTERS, min_size=1, max_size=8), min_size=1, max_size=5)
NAMES = st.text("abcxyz_", min_size=1, max_size=5)


@st.composite
def _integers(draw) -> dict:
    low, high = sorted((draw(st.integers(-200, 2000)), draw(st.integers(-200, 2000))))
    bounds = {"minimum": low, "maximum": high}
    return {"type": draw(st.sampled_from(["integer", "number"]))} | {
        k: v for k, v in bounds.items() if draw(st.booleans())
    }


@st.composite
def _strings(draw) -> dict:
    if draw(st.integers(0, 3)) == 0:
        return {
            "type": "string",
            "pattern": draw(st.sampled_from(["^[a-z]+$", "^#[0-9]{2,4}", "ab", r"^\d+(\.\d+)?$", "[^a-z]$"])),
        }
    if draw(st.integers(0, 3)) == 0:
        return {"type": "string", "format": draw(st.sampled_from(["date", "uuid", "ipv4", "email", "date-time"]))}
    return {"type": "string"} | draw(st.sampled_from([{}, {"maxLength": 6}, {"minLength": 2, "maxLength": 9}]))


SCALARS = st.one_of(
    _integers(),
    _strings(),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.lists(st.text(CHARACTERS, max_size=5) | st.integers(-9, 99) | st.none(), min_size=1, max_size=4).map(
        lambda v: {"enum": v}
    ),
)


@st.composite
def _objects(draw, inner: st.SearchStrategy[dict]) -> dict:
    properties = draw(st.dictionaries(NAMES, inner, min_size=1, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": draw(st.booleans()),
    }


@st.composite
def _arrays(draw, inner: st.SearchStrategy[dict]) -> dict:
    low = draw(st.integers(0, 2))
    bounds = draw(st.sampled_from([{}, {"minItems": low}, {"minItems": low, "maxItems": low + 2}]))
    return {"type": "array", "items": draw(inner)} | bounds


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        _objects(inner), _arrays(inner), st.lists(inner, min_size=1, max_size=3).map(lambda a: {"anyOf": a})
    ),
    max_leaves=6,
)
FORMATS = st.one_of(
    REGEXES.map(lambda r: {"regex": r}),
    CHOICES.map(lambda c: {"choice": c}),
    SCHEMAS.map(lambda s: {"json": s}),
    st.just({"json_object": True}),
)


# ---- how it is decoded ----


@st.composite
def _settings(draw, model: str) -> dict:
    policy = draw(st.sampled_from([p for p in FULL.values() if not p.example or model == "tiny-llada"]))
    keys: dict[str, Any] = {"dllm_cache": policy.name} | policy.example
    if draw(st.integers(0, 2)) == 0:
        keys["dllm_horizon"] = draw(st.sampled_from([0, 8, 64]))
    if policy.window_length is None:
        keys["dllm_block_length"] = draw(st.sampled_from([8, 16, 32, 512]))
    if not policy.example:
        rules = [{"dllm_threshold": t} for t in (0.1, 0.3, 0.9)] + [{"dllm_tokens_per_step": 3}, {"dllm_factor": 2.0}]
        rules += [{"dllm_entropy_bound": 1.0}, {"dllm_threshold": 0.1, "dllm_score": "margin"}]
        rules += [{"dllm_entropy_threshold": 0.5}]
        keys |= draw(st.sampled_from(rules))
    if policy.window_length is None and not policy.needs_one_block and draw(st.integers(0, 2)) == 0:
        keys["dllm_block_add_threshold"] = draw(st.sampled_from([0.0, 0.3]))
    if not policy.drops_behind_end:
        ends = [{}, {"dllm_early_stop": True}, {"dllm_drop_behind_end": True}]
        keys |= draw(st.sampled_from(ends))
    return keys


@dataclass
class FormatCase:
    """A request for a format."""

    wanted: dict  # of StructuredOutputsParams
    room: int  # tokens beyond the shortest answer
    settings: dict
    temperature: float
    seed: int
    prompt: str
    built: Built | Refused = field(repr=False, default=None)  # type: ignore[assignment]

    @property
    def possible(self) -> bool:
        return isinstance(self.built, Built) and self.built.shortest < MODEL_LENGTH // 3

    @property
    def max_tokens(self) -> int:
        return max(1, self.built.shortest + self.room)

    def fault(self, text: str) -> str | None:
        """What is wrong with an answer, or None."""
        if "regex" in self.wanted:
            return None if _matches(self.wanted["regex"], text) else f"{text!r} does not match"
        if "choice" in self.wanted:
            return None if text in self.wanted["choice"] else f"{text!r} is not among them"
        try:
            value = json.loads(text)
            jsonschema.Draft202012Validator(self.wanted.get("json", {"type": "object"})).validate(value)
        except (ValueError, jsonschema.ValidationError) as e:
            return f"{text!r}: {str(e)[:200]}"
        return None


def _matches(pattern: str, text: str) -> bool:
    return regex.fullmatch(pattern, text, timeout=20) is not None


@functools.cache
def spelling(model: str) -> Spelling:
    return Spelling(small_vocabulary(model))


def small_vocabulary(model: str) -> Vocabulary:
    """A bundled checkpoint's, from its tokenizer's file."""
    file = json.loads((CHECKPOINTS / model / "tokenizer.json").read_text())
    special = {token["id"] for token in file["added_tokens"]}
    size = max(file["model"]["vocab"].values()) + 1
    tokens = [b""] * size
    for text, i in file["model"]["vocab"].items():
        tokens[i] = b"" if i in special else text.encode()
    return vocabulary(tokens, [file["model"]["vocab"]["<|endoftext|>"]])


def asked(wanted: dict) -> Asked:
    (kind, value), *_ = wanted.items()
    if kind in ("json", "json_object"):
        return Asked("json", json.dumps(value if kind == "json" else {"type": "object"}))
    return Asked(kind, tuple(value) if kind == "choice" else value)


@st.composite
def format_cases(draw, model: str) -> FormatCase:
    case = FormatCase(
        wanted=draw(FORMATS),
        room=draw(st.sampled_from([0, 1, 5, 30, 100])),
        settings=draw(_settings(model)),
        temperature=draw(st.sampled_from([0.0, 0.7, 2.0])),
        seed=draw(st.integers(0, 1000)),
        prompt=draw(st.sampled_from(["count 3 by 4 x6", "echo abcxyz", "calc 3+4-5", "sum 1 2 3", "?"])),
    )
    case.built = built(asked(case.wanted), spelling(model))
    return case
