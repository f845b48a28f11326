"""A request's own `max_tokens` reaches the engine.

What: in a server of one of our models, the OpenAI requests' `to_sampling_params` passes on the length that the
  request names, instead of vLLM's clamped value, and marks one that the request does not name (`Unnamed`).
Why: vLLM cuts `max_tokens` to the room that is left, and gives a text completion without it 16 tokens. The
  response length is part of what a diffusion model computes: too long a request is refused, not cut, and one
  without a length gets its template's or `dllm_gen_length` (all in patches/admission.py).
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM's server leaves the length to the engine, or has a default that a model can set without a cap.
"""

from vllm_dllm.options import SettingError
from vllm_dllm.patches.wrap import wrap
from vllm_dllm.validation import Refusal, Unnamed

# where a request names its length; the first one given counts
FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class Named(int):
    """A length, and the field of the request that it stands in."""

    field: str


def _named(request) -> Named | None:
    """The length that a request names."""
    for field in FIELDS:
        length = getattr(request, field, None)
        if type(length) is int:
            named = Named(length)
            # vLLM's Messages API gives its max_tokens both names
            named.field = "max_tokens" if getattr(request, "max_tokens", None) == length else field
            return named
    return None


def _room(room: int) -> int:
    """What vLLM takes for a length: a prompt that leaves no room is refused later, for its own length."""
    return max(room, 1)


def _complete(params, named: Named | None):
    """`params` with the length that the request names; without one it is the template's or the server's."""
    if named is None:
        params.max_tokens = Unnamed(params.max_tokens)
    elif named:
        params.max_tokens = named
    return params


def _refuse(named: Named | None, least: int) -> None:
    if named is not None and named < least:
        raise Refusal.of(SettingError(f"{named.field}={named} is not allowed: it must be at least {least}"))


def _of_chat(original, self, max_tokens, default_sampling_params):
    named = _named(self)
    _refuse(named, 1)
    return _complete(original(self, _room(max_tokens), default_sampling_params), named)


def _of_response(original, self, default_max_tokens, default_sampling_params=None):
    named = _named(self)
    _refuse(named, 1)
    params = original(self, _room(default_max_tokens), default_sampling_params)
    return _complete(params, named)


def _of_completion(original, self, max_tokens, default_sampling_params=None):
    named = _named(self)
    _refuse(named, 0 if self.echo else 1)  # 0: to echo the prompt and generate nothing is vLLM's own business
    params = original(self, _room(max_tokens), default_sampling_params)
    if named is None:  # vLLM's value is cut to the room beside the first prompt, for all of them
        self.max_tokens = Unnamed(params.max_tokens)
    return _complete(params, named)


def apply() -> None:
    """For a process that serves one of our models; imports the server's protocols."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    CompletionRequest.model_fields["max_tokens"].default = None  # a validator fills in this default
    wrap(ChatCompletionRequest, "to_sampling_params", _of_chat)
    wrap(CompletionRequest, "to_sampling_params", _of_completion)
    wrap(ResponsesRequest, "to_sampling_params", _of_response)
