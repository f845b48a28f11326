"""The tokens with which a checkpoint ends a text or a turn, and those that it never chooses."""

from dataclasses import dataclass
from typing import Any

from vllm.config import ModelConfig
from vllm.tokenizers import cached_tokenizer_from_config

from vllm_dllm.models import family_of
from vllm_dllm.models.generation import defaults


@dataclass(frozen=True)
class Ends:
    """Token ids. `eos` and `turn` are None where the tokenizer has no such token."""

    eos: int | None  # the tokenizer's
    turn: int | None  # what the family's chat template puts behind a turn
    others: frozenset[int]  # further `eos_token_id`s of the checkpoint, and of some families `turn`
    never: tuple[int, ...] = ()  # what the family's own code never chooses

    @property
    def of_text_and_turn(self) -> tuple[int, ...]:
        return tuple(i for i in (self.eos, self.turn) if i is not None)

    @property
    def all(self) -> frozenset[int]:
        return self.others | {i for i in (self.eos, self.turn) if i is not None}


_KNOWN: dict[tuple[str | None, ...], Ends] = {}


def ends_of(model: ModelConfig) -> Ends:
    """A checkpoint's end tokens. Reads its tokenizer the first time, a matter of a second unless vLLM has it already."""
    key = (model.model, model.revision, model.tokenizer, model.tokenizer_revision, model.generation_config)
    if key not in _KNOWN:
        _KNOWN[key] = _ends_of(model)
    return _KNOWN[key]


def _ends_of(model: ModelConfig) -> Ends:
    others = frozenset(with_turn(model, defaults(model)[0]).get("eos_token_id", ()))
    tokenizer = cached_tokenizer_from_config(model)
    if tokenizer is None:  # skip_tokenizer_init
        return Ends(None, None, others)
    family, size, vocabulary = family_of(model), model.get_vocab_size(), tokenizer.get_vocab()
    turn = None if family.end_of_turn is None else vocabulary.get(family.end_of_turn)
    found = (tokenizer.eos_token_id, turn)
    eos, turn = (i if i is not None and i < size else None for i in found)
    never = (vocabulary.get(token) for token in family.never)
    return Ends(eos, turn, others, tuple(i for i in never if i is not None and i < size))


def with_turn(model: ModelConfig, defaults: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's own `defaults`, whose `eos_token_id`s are those that end an answer: of some families the end of a
    turn is one, whether the checkpoint says so or not."""
    family, tokenizer = family_of(model), cached_tokenizer_from_config(model)
    if not family.ends_with_turn or family.end_of_turn is None or tokenizer is None:
        return defaults
    turn = tokenizer.get_vocab().get(family.end_of_turn)
    known = defaults.get("eos_token_id", [])
    if turn is None or turn in known:
        return defaults
    return defaults | {"eos_token_id": [*known, turn]}
