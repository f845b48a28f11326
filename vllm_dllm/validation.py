"""What a request may ask for, checked where it arrives, before the engine sees it.

Fields that the APIs of a server have besides are in fields.py.
"""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import BeamSearchParams, SamplingParams

from vllm_dllm.catalogue import GEN_LENGTH
from vllm_dllm.engine_config import server_settings
from vllm_dllm.options import SettingError

ONCE = "a diffusion model unmasks positions in any order, not from left to right"
UNBUILT = "it is not built for diffusion decoding"

# parameter -> (the values that change nothing, why others are refused)
REFUSED = {
    "structured_outputs": ((None,), ONCE),
    "min_tokens": ((0,), ONCE),
    "prompt_logprobs": ((None,), "prompt tokens are not predicted"),
    "prompt_logprob_token_ids": ((None,), "prompt tokens are not predicted"),
    "thinking_token_budget": ((None,), ONCE),
    "presence_penalty": ((0.0,), UNBUILT),
    "frequency_penalty": ((0.0,), UNBUILT),
    "repetition_penalty": ((1.0,), UNBUILT),
    "min_p": ((0.0,), UNBUILT),
    "logit_bias": ((None, {}), UNBUILT),
    "allowed_token_ids": ((None,), UNBUILT),
    "bad_words": ((None, []), UNBUILT),
    "logprob_token_ids": ((None, []), UNBUILT),
    "trace_decode_token_ids": ((None, []), UNBUILT),
    "watermarking": ((None, False), UNBUILT),
}


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


def response_length(config: VllmConfig, prompt_len: int, max_tokens: int | None) -> int:
    """The request's response length in tokens; without `max_tokens`, `dllm_gen_length` or what room there is.

    Raises SettingError if prompt and response exceed `max_model_len`.
    """
    limit = config.model_config.max_model_len
    if max_tokens is None:
        if prompt_len >= limit:
            raise SettingError(
                f"a prompt of {prompt_len} tokens is not allowed: it must have at most {limit - 1}, one less than "
                "max_model_len, to leave room for a response",
                "prompt",
            )
        default = server_settings(config).value(GEN_LENGTH)
        return min(default, limit - prompt_len)
    if prompt_len + max_tokens > limit:
        name = getattr(max_tokens, "field", "max_tokens")  # what the client calls it (patches/max_tokens.py)
        raise SettingError(
            f"{name}={max_tokens} is not allowed: with the prompt's {prompt_len} tokens the canvas has "
            f"{prompt_len + max_tokens}, and it must be at most {limit} (max_model_len)"
        )
    return int(max_tokens)


def check_request(config: VllmConfig, params: SamplingParams, prompt_ids: Sequence[int]) -> int:
    """The request's response length in tokens. Raises SettingError unless it can be decoded as it asks."""
    check_params(params)
    check_prompt(config, prompt_ids)
    length = response_length(config, len(prompt_ids), params.max_tokens)
    server_settings(config).of_request(params.extra_args).check_canvas(length)
    return length
