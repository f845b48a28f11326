"""A `dllm_*` setting in the wrong place of a request is refused.

What: in a server of one of our models, an OpenAI request with a `dllm_*` key beside its own fields gets HTTP 400;
  the settings belong into `vllm_xargs`.
Why: vLLM's requests accept fields they do not know and drop them with a warning in the log: the request would run
  with other settings than it names.
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM refuses fields it does not know, or hands them on to plugins.
"""

from vllm.exceptions import VLLMValidationError

from vllm_dllm.patches.wrap import wrap
from vllm_dllm.settings import given


def _to_sampling_params(original, self, *args, **kwargs):
    for key, value in given(self.model_extra).items():
        raise VLLMValidationError(f"{key}={value!r} is not allowed beside a request's fields: it must be in vllm_xargs")
    return original(self, *args, **kwargs)


def apply() -> None:
    """For a process that serves one of our models; imports the server's protocols."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    wrap(ChatCompletionRequest, "to_sampling_params", _to_sampling_params)
    wrap(CompletionRequest, "to_sampling_params", _to_sampling_params)
    wrap(ResponsesRequest, "to_sampling_params", _to_sampling_params)
