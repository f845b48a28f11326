"""Guaranteed formats where requests arrive: what they ask for, built beside the engine, and sent along to it.

vLLM's own `structured_outputs` go no further than here: the engine core would have its own backends read them.
"""

import hashlib
import json
import weakref
from collections.abc import Sequence
from typing import Any

from vllm.config import ModelConfig, VllmConfig
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config

from vllm_dllm.canvas import Canvas
from vllm_dllm.catalogue import SUPPRESS_EOS
from vllm_dllm.constraints.format import Format
from vllm_dllm.format_carrier import CARRIER
from vllm_dllm.formats.asked import Asked
from vllm_dllm.formats.automaton import Automaton
from vllm_dllm.formats.build import Vocabulary, vocabulary
from vllm_dllm.formats.builder import Builder
from vllm_dllm.formats.helper import Built
from vllm_dllm.frontier import Window
from vllm_dllm.models.ends import ends_of
from vllm_dllm.options import SettingError
from vllm_dllm.validation import Checked, shown

_builders: "weakref.WeakKeyDictionary[Any, Builder]" = weakref.WeakKeyDictionary()  # by tokenizer


def asked_of(params: SamplingParams) -> Asked | None:
    """What a request asks for. Raises SettingError for what is no regular language."""
    if CARRIER in (params.extra_args or {}):
        raise SettingError(f"{CARRIER} is not allowed in a request: it is the server's own")
    structured: StructuredOutputsParams | None = params.structured_outputs
    if structured is None or structured.all_constraints_none():
        return None
    for name in ("grammar", "structural_tag"):
        if getattr(structured, name) is not None:
            raise SettingError(
                f"structured_outputs.{name}={shown(getattr(structured, name))} is not allowed: it must be regex, choice, json "
                "or json_object, because what is unmasked in any order can be held to a regular language alone",
                f"structured_outputs.{name}",
            )
    if structured.regex is not None:
        return Asked("regex", structured.regex)
    if structured.choice is not None:
        if not structured.choice:
            raise SettingError("structured_outputs.choice=[] is not allowed: it must have at least one answer")
        return Asked("choice", tuple(map(str, structured.choice)))
    whitespace = "[ ]?" if structured.whitespace_pattern is None else structured.whitespace_pattern
    if structured.disable_any_whitespace:
        whitespace = ""
    if structured.json is not None:
        schema = structured.json
        return Asked("json", schema if isinstance(schema, str) else json.dumps(schema), whitespace)
    if not structured.json_object:
        raise SettingError("structured_outputs.json_object=False is not allowed: it must be True or left out")
    return Asked("json", '{"type": "object"}', whitespace)


def builder_of(model: ModelConfig) -> Builder:
    """The builder of formats over a model's tokens, the same one each time."""
    tokenizer = cached_tokenizer_from_config(model)
    if tokenizer is None:
        raise SettingError(
            "structured_outputs is not allowed: the server has no tokenizer (skip_tokenizer_init)", "structured_outputs"
        )
    found = _builders.get(tokenizer)
    if found is None:
        found = _builders[tokenizer] = Builder(lambda: vocabulary_of(model))
    return found


def vocabulary_of(model: ModelConfig) -> Vocabulary:
    """A model's tokens as text; special ones belong to no word, and those that end an answer are known."""
    import xgrammar  # of vLLM's backends the one that knows how tokenizers spell; a script without formats needs it not

    tokenizer, size = cached_tokenizer_from_config(model), model.get_vocab_size()
    tokens = list(xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size).decoded_vocab[:size])
    tokens += [b""] * (size - len(tokens))
    for i, added in tokenizer.added_tokens_decoder.items():
        if i < size:
            tokens[i] = b"" if added.special else added.content.encode()
    found = ends_of(model)
    ends = found.others | {i for i in (found.eos,) if i is not None}  # what the engine stops at
    for i in {*tokenizer.all_special_ids, model.hf_config.mask_token_id}:
        if i < size:
            tokens[i] = b""
    return vocabulary(tokens, sorted(ends))


def check(
    config: VllmConfig, params: SamplingParams, built: Built, prompt_ids: Sequence[int], checked: Checked
) -> None:
    """Raise SettingError for a format that no answer to this request can have."""
    bans = {
        "min_tokens": params.min_tokens,
        "allowed_token_ids": params.allowed_token_ids,
        "bad_words": params.bad_words,
        SUPPRESS_EOS.key: checked.settings.suppress_eos,
    }
    for name, value in bans.items():
        if value:
            raise SettingError(
                f"{name}={shown(value)} is not allowed with structured_outputs: it must be left out, for the format says "
                "which tokens there can be"
            )
    if checked.max_tokens < built.shortest:
        name = getattr(params.max_tokens, "field", "max_tokens")  # what the client calls it (patches/max_tokens.py)
        raise SettingError(
            f"{name}={checked.max_tokens} is not allowed with this format: it must be at least {built.shortest}, the "
            "tokens of its shortest answer",
            name,
        )
    if text := checked.text:
        mask_id, frontier = config.model_config.hf_config.mask_token_id, Window(1)
        canvas = Canvas(prompt_ids, checked.max_tokens, mask_id, frontier, text.at(len(prompt_ids)), text.suffix)
        if not Format(Automaton.unpack(built.packed), "").start(canvas):
            raise SettingError(
                "dllm_template and dllm_suffix are not allowed with this format: no answer of this length that has their "
                "text is a valid one"
            )


def check_known(config: VllmConfig, params: SamplingParams, prompt_ids: Sequence[int], checked: Checked) -> None:
    """As `check`, if the format has been built already; waits for nothing."""
    asked = asked_of(params)
    found = None if asked is None else builder_of(config.model_config).known(asked)
    if found is not None:
        check(config, params, found.result(), prompt_ids, checked)


def carried(built: Built) -> dict[str, Any]:
    """A format as a request carries it to the engine, in its `extra_args`."""
    return {CARRIER: [hashlib.sha256(built.packed).hexdigest(), built.packed]}
