"""A streamed request that is refused gets HTTP 400.

What: in a server of one of our models, a request is checked when the server asks the engine for its answer, and
  not only when the first part of the answer is awaited.
Why: the answer is an async generator, so that the checks of patches/admission.py run after a streamed response
  has sent its status, 200: the refusal became an event of the stream, and in the Responses API a broken
  connection. Those checks stay: they are what offline requests meet.
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM validates a request before it starts to stream the response.
"""

from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.input_processor import InputProcessor

from vllm_dllm import format_requests, validation
from vllm_dllm.models import is_ours
from vllm_dllm.options import SettingError
from vllm_dllm.patches.wrap import wrap


def _refuse(engine: Any, prompt: Any, params: Any) -> None:
    """Raise Refusal for a request that patches/admission.py is going to refuse."""
    try:
        if isinstance(params, SamplingParams) and isinstance(prompt, dict) and "prompt_token_ids" in prompt:
            encode = validation.encoder(engine.vllm_config, engine.renderer.tokenizer)
            params = _completed(engine.input_processor, params)
            checked = validation.check_request(engine.vllm_config, params, prompt["prompt_token_ids"], encode)
            if tasks := vars(engine).get("_supported_tasks"):  # a server has asked at its start
                validation.check_looks(checked.settings.policy, tasks)
            format_requests.check_known(engine.vllm_config, params, prompt["prompt_token_ids"], checked)
    except SettingError as e:
        raise validation.Refusal.of(e) from e


def _completed(processor: InputProcessor, params: SamplingParams) -> SamplingParams:
    """With the tokens of what they say in words, as vLLM completes its own copy of them on the way to the engine."""
    if not params.bad_words and not params.min_tokens:
        return params
    params = params.clone()
    params.update_from_generation_config(processor.generation_config_fields, processor.renderer.get_eos_token_id())
    if processor.tokenizer is not None:
        params.update_from_tokenizer(processor.tokenizer)
    return params


def _generate(original, self, prompt, sampling_params, *args, **kwargs):
    if is_ours(self.model_config):
        _refuse(self, prompt, sampling_params)
    return original(self, prompt, sampling_params, *args, **kwargs)


def _generate_with_builtin_tools(original, self, request_id, engine_input, sampling_params, *args, **kwargs):
    if is_ours(self.engine_client.model_config):
        _refuse(self.engine_client, engine_input, sampling_params)
    return original(self, request_id, engine_input, sampling_params, *args, **kwargs)


def apply() -> None:
    """For a process that serves one of our models; imports the server's handlers."""
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    wrap(AsyncLLM, "generate", _generate)
    wrap(OpenAIServingResponses, "_generate_with_builtin_tools", _generate_with_builtin_tools)
