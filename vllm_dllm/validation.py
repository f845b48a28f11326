"""What a request may ask for, checked where it arrives, before the engine sees it.

Fields that the APIs of a server have besides are in fields.py.
"""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams, SamplingParams

from vllm_dllm.caching import CachePolicy
from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.canvas import Canvas
from vllm_dllm.catalogue import CACHE, CFG_SCALE, GEN_LENGTH
from vllm_dllm.engine_config import model_traits, server_settings
from vllm_dllm.given_text import NO_TEXT, SUFFIX, TEMPLATE, GivenText, given_text, with_token_ids
from vllm_dllm.options import SettingError
from vllm_dllm.param_constraints import check_ends, check_leaves, check_tokens, constraints_of
from vllm_dllm.scored import Target, target_of
from vllm_dllm.settings import Settings
from vllm_dllm.vllm_messages import LOOKS

ONCE = "a diffusion model unmasks positions in any order, not from left to right"
UNBUILT = "it is not built for diffusion decoding"

# parameter -> (the values that change nothing, why others are refused)
REFUSED = {
    "prompt_logprob_token_ids": ((None,), UNBUILT),
    "thinking_token_budget": ((None,), ONCE),
    "logprob_token_ids": ((None, []), UNBUILT),
    "trace_decode_token_ids": ((None, []), UNBUILT),
    "watermarking": ((None, False), UNBUILT),
}


class Unnamed(int):
    """A length that a server's request got from vLLM, whose code wants one to be there: it names none."""


class Refusal(VLLMValidationError):
    """A SettingError as the client of a server gets it: HTTP 400, with `param`."""

    @classmethod
    def of(cls, error: SettingError) -> "Refusal":
        return cls(str(error), parameter=error.parameter)

    def __str__(self) -> str:
        return Exception.__str__(self)  # vLLM's own repeats the parameter behind the message, which names it already


def check_params(params: SamplingParams | BeamSearchParams) -> None:
    """Raise SettingError for a sampling parameter that diffusion decoding cannot give or does not have."""
    if isinstance(params, BeamSearchParams):
        raise SettingError("use_beam_search=True is not allowed: it must be False, because " + ONCE)
    for name, (harmless, why) in REFUSED.items():
        value = getattr(params, name)
        if not any(value == h for h in harmless):
            raise refusal(name, value, repr(harmless[0]), why)


def refusal(name: str, value: Any, allowed: str, why: str) -> SettingError:
    return SettingError(f"{name}={shown(value)} is not allowed: it must be {allowed}, because {why}", name)


def shown(value: Any) -> str:
    """A value as it was given, in at most 80 characters: of a structure the fields that are set."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    elif dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        value = {name: v for name, v in fields.items() if v not in (None, False)}
    return textwrap.shorten(repr(value), 80)


def check_prompt(config: VllmConfig, prompt_ids: Sequence[int]) -> None:
    """Raise SettingError for a prompt without tokens, or with one that the model has no embedding for."""
    size = config.model_config.get_vocab_size()
    if not prompt_ids:
        raise SettingError("prompt=[] is not allowed: it must have at least one token")
    if not 0 <= min(prompt_ids) <= max(prompt_ids) < size:
        i, token = next((i, token) for i, token in enumerate(prompt_ids) if not 0 <= token < size)
        raise SettingError(
            f"prompt[{i}]={token} is not allowed: a token id must be from 0 to {size - 1} (the model's vocabulary)",
            "prompt",
        )


def response_length(
    config: VllmConfig, prompt_len: int, max_tokens: int | None, text: GivenText = NO_TEXT, block: int | None = None
) -> int:
    """The request's response length in tokens: the template's, or `max_tokens`, or `dllm_gen_length` or what room there
    is. `block`: where attention is causal by blocks, the positions in one.

    Raises SettingError if prompt, response and suffix exceed `max_model_len`, or for a `max_tokens` that is not the
    template's.
    """
    if isinstance(max_tokens, Unnamed):
        max_tokens = None
    limit, what = room(config, block)
    beside = f"the prompt's {prompt_len} tokens"
    others = prompt_len + len(text.suffix)
    if text.suffix:
        beside += f" and the suffix's {len(text.suffix)}"
    name = getattr(max_tokens, "field", "max_tokens")  # what the client calls it (patches/max_tokens.py)
    if text.length is not None:
        if max_tokens not in (None, text.length) and not _is_unnamed(max_tokens):
            raise SettingError(
                f"{name}={max_tokens} is not allowed with {TEMPLATE.key}: it must be left out or {text.length}, the "
                "template's positions"
            )
        name, max_tokens = f"{TEMPLATE.key} of {text.length} positions", text.length
    elif max_tokens is None:
        if prompt_len >= limit:
            raise SettingError(
                f"a prompt of {prompt_len} tokens is not allowed: it must have at most {limit - 1}, one less than "
                f"{what}, to leave room for a response",
                "prompt",
            )
        if others >= limit:
            raise SettingError(
                f"{SUFFIX.key} of {len(text.suffix)} tokens is not allowed: with {prompt_len} of the prompt they must be "
                f"at most {limit - 1}, one less than {what}, to leave room for a response"
            )
        default = server_settings(config).value(GEN_LENGTH)
        return min(default, limit - others)
    else:
        name = f"{name}={max_tokens}"
    if others + max_tokens > limit:
        raise SettingError(
            f"{name} is not allowed: with {beside} the canvas has {others + max_tokens}, and it must be at most {limit} "
            f"({what})"
        )
    return int(max_tokens)


def room(config: VllmConfig, block: int | None) -> tuple[int, str]:
    """The most positions that a canvas may have, and what they are called: with blocks of `block`, whole ones."""
    limit = config.model_config.max_model_len
    return (
        (limit, "max_model_len") if block is None else (limit // block * block, f"max_model_len in blocks of {block}")
    )


def _is_unnamed(max_tokens: int) -> bool:
    """Whether this is what a SamplingParams has that names no length: a server's requests have a subclass or None."""
    return type(max_tokens) is int and max_tokens == SamplingParams().max_tokens


class Checked(NamedTuple):
    """What a request that can be decoded gets in place of its own."""

    max_tokens: int
    extra_args: dict[str, Any] | None
    settings: Settings
    text: GivenText
    target: Target | None = None  # of a request that scores


def check_request(
    config: VllmConfig,
    params: SamplingParams,
    prompt_ids: Sequence[int],
    encode: Callable[[str], Sequence[int]] | None,
) -> Checked:
    """The response's length in tokens, and the settings with token ids in place of texts (`encode` makes them).

    Raises SettingError unless the request can be decoded as it asks.
    """
    check_params(params)
    check_prompt(config, prompt_ids)
    target = target_of(params)
    settings = server_settings(config).of_request(params.extra_args)
    extra_args = with_token_ids(params.extra_args, encode)
    text = given_text(extra_args)
    text.check_ids(config.model_config.get_vocab_size(), model_traits(config).mask_id)
    length = response_length(config, len(prompt_ids), params.max_tokens, text, settings.causal_block)
    if target is None:
        settings.check_canvas(length)
        check_constraints(config, params, settings, prompt_ids, length, text)
        check_prompt_logprobs(config, params, prompt_ids)
    check_full_pass(config, settings, settings.canvas_length(len(prompt_ids), length), target is not None)
    if settings.cfg_scale:
        check_guidance(config, settings.cfg_scale, len(prompt_ids) + length + len(text.suffix))
    return Checked(length, extra_args, settings, text, target)


def check_full_pass(config: VllmConfig, settings: Settings, canvas_len: int, scores: bool) -> None:
    """Raise SettingError for a request whose passes compute the whole canvas, of more positions than a step can hold."""
    most = config.scheduler_config.max_num_batched_tokens
    if canvas_len <= most or (settings.policy.commits and not scores):
        return
    what = "a likelihood" if scores else f"{CACHE.key}={settings.cache!r}"
    raise SettingError(
        f"{what} is not allowed with a canvas of {canvas_len} positions: each pass computes all of them, and a step holds at "
        f"most {most} (max_num_batched_tokens)"
    )


def check_prompt_logprobs(config: VllmConfig, params: SamplingParams, prompt_ids: Sequence[int]) -> None:
    """Raise SettingError for log probabilities of a prompt that has the mask token in it."""
    mask_id = model_traits(config).mask_id
    if params.prompt_logprobs is not None and mask_id in prompt_ids[1:]:
        raise SettingError(
            f"prompt_logprobs={params.prompt_logprobs} is not allowed with {mask_id}, the mask token, in the prompt: it is "
            "what stands where a token is not known"
        )


def encoder(config: VllmConfig, tokenizer: Any) -> Callable[[str], Sequence[int]] | None:
    """How `tokenizer` (vLLM's, or None) makes token ids of a text: of that alone, without special tokens around it."""
    if tokenizer is None:
        return None
    limit = config.model_config.max_model_len

    def encode(text: str) -> Sequence[int]:
        if len(text) > limit * tokenizer.max_chars_per_token:  # it is not worth the time
            raise SettingError(
                f"a text of {len(text)} characters is not allowed in {TEMPLATE.key} and {SUFFIX.key}: it must have at "
                f"most {limit} tokens (max_model_len)"
            )
        return tokenizer.encode(text, add_special_tokens=False)

    return encode


def check_looks(policy: type[CachePolicy], tasks: Sequence[str]) -> None:
    """Raise SettingError for a policy that looks into the attention where the worker, whose `tasks` vLLM knows, cannot."""
    if policy.probe_class is not None and LOOKS not in tasks:
        raise SettingError(
            f"{CACHE.key}={policy.name!r} is not allowed: it looks into the attention, and the keys of the server's "
            "attention backend cannot be read (its log says why); it must be one of "
            + ", ".join(name for name, other in POLICIES.items() if other.probe_class is None)
        )


def check_guidance(config: VllmConfig, scale: float, canvas_len: int) -> None:
    """Raise SettingError if there can never be room for a canvas of this length and its second one."""
    scheduler, cache = config.scheduler_config, config.cache_config
    engines = config.parallel_config.data_parallel_size
    pages = 2 * -(-canvas_len // cache.block_size)
    rooms = [
        (2 * canvas_len, scheduler.max_num_batched_tokens, "positions in a step (max_num_batched_tokens)"),
        (2, scheduler.max_num_seqs, "canvases at once (max_num_seqs)"),
    ]
    if cache.num_gpu_blocks:  # known once the engine has started; vLLM keeps one page for itself in each
        rooms.append((pages, cache.num_gpu_blocks // engines - 1, f"KV pages of {cache.block_size} tokens"))
    for need, room, what in rooms:
        if need > room:
            raise SettingError(
                f"{CFG_SCALE.key}={scale} is not allowed with a canvas of {canvas_len} positions: with the second one it "
                f"needs {need} {what}, and there are {room}"
            )


def check_constraints(
    config: VllmConfig,
    params: SamplingParams,
    settings: Settings,
    prompt_ids: Sequence[int],
    length: int,
    text: GivenText,
) -> None:
    """Raise SettingError for constraints on the tokens that name what is none, or that leave none."""
    vocab_size = config.model_config.get_vocab_size()
    check_tokens(params, vocab_size)
    check_ends(settings, config.model_config)
    if params.min_tokens > length:
        raise SettingError(
            f"min_tokens={params.min_tokens} is not allowed: it must be at most {length}, the response's length"
        )
    if params.bad_words and params.bad_words_token_ids is None:
        raise SettingError(
            f"bad_words={shown(params.bad_words)} is not allowed: there is no tokenizer that says which tokens they are"
        )
    if constraints := constraints_of(params, settings, text, config.model_config):
        mask_id = model_traits(config).mask_id
        given = text.at(len(prompt_ids))
        canvas = Canvas(prompt_ids, length, mask_id, settings.make_frontier(), given, text.suffix)
        check_leaves(constraints, canvas, vocab_size, mask_id)
