"""A request's own `max_tokens` reaches the engine.

What: in a server of one of our models, the OpenAI requests' `to_sampling_params` passes on the length that the
  request names, instead of vLLM's clamped value; a text completion's without a length passes on None.
Why: vLLM cuts `max_tokens` to the room that is left, and gives a text completion without it 16 tokens. The
  response length is part of what a diffusion model computes: too long a request is refused, not cut, and one
  without a length gets `dllm_gen_length` (both in patches/admission.py).
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM's server leaves the length to the engine, or has a default that a model can set without a cap.
"""

from vllm_dllm.patches.wrap import wrap

# where a request names its length; the first one given counts
FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class Unnamed(int):
    """A length that a text completion got from vLLM: its response code wants one to be there."""


def _named(request) -> int | None:
    """The length that a request names."""
    return next((n for n in (getattr(request, field, None) for field in FIELDS) if type(n) is int), None)


def _keep_named(params, named: int | None) -> None:
    if named:  # 0: a completion that echoes its prompt and generates nothing is vLLM's own business
        params.max_tokens = named


def _of_chat(original, self, max_tokens, default_sampling_params):
    params = original(self, max_tokens, default_sampling_params)
    _keep_named(params, _named(self))
    return params  # without a name vLLM's value is the server's default, or the room that is left


def _of_response(original, self, default_max_tokens, default_sampling_params=None):
    params = original(self, default_max_tokens, default_sampling_params)
    _keep_named(params, _named(self))
    return params


def _of_completion(original, self, max_tokens, default_sampling_params=None):
    named = _named(self)
    params = original(self, max_tokens, default_sampling_params)
    _keep_named(params, named)
    if named is None:  # vLLM's value is cut to the room beside the first prompt, for all of them
        self.max_tokens = Unnamed(params.max_tokens)
        params.max_tokens = None
    return params


def apply() -> None:
    """For a process that serves one of our models; imports the server's protocols."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    CompletionRequest.model_fields["max_tokens"].default = None  # a validator fills in this default
    wrap(ChatCompletionRequest, "to_sampling_params", _of_chat)
    wrap(CompletionRequest, "to_sampling_params", _of_completion)
    wrap(ResponsesRequest, "to_sampling_params", _of_response)
