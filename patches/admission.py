"""Requests for a diffusion model are checked and completed where they arrive.

What: for our architectures, vLLM's InputProcessor also
  - refuses sampling parameters and `dllm_*` settings that cannot be honoured (vllm_dllm.validation);
  - has what `structured_outputs` ask for built beside the engine, and sent along with the request in their place
    (vllm_dllm.format_requests);
  - gives a request without `max_tokens` its response length, and refuses one that does not fit;
  - turns the strings of `dllm_template` and `dllm_suffix` into token ids;
  - refuses beam search, resumable (streaming-input) requests and prompt embeddings.
Why: the one place that every request of every API passes with its prompt's tokens, and whose errors become
  HTTP 400 (or an exception offline). vLLM's hooks see either the parameters (logits processors) or belong
  to the platform (validate_request).
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM has a validation hook for plugins that sees parameters and prompt.
"""

from vllm.sampling_params import BeamSearchParams, SamplingParams
from vllm.v1.engine.input_processor import InputProcessor

from vllm_dllm import format_requests, validation
from vllm_dllm.models import is_ours
from vllm_dllm.options import SettingError
from vllm_dllm.patches.wrap import wrap
from vllm_dllm.scored import CARRIER


def _process_inputs(original, self, request_id, prompt, params, *args, resumable=False, **kwargs):
    if not is_ours(self.model_config) or not isinstance(params, SamplingParams):
        return original(self, request_id, prompt, params, *args, resumable=resumable, **kwargs)
    try:
        validation.check_params(params)
        asked = format_requests.asked_of(params)
        if asked is not None:
            params = params.clone()  # the engine core would have vLLM's own backends read them
            params.structured_outputs = None
        if resumable:
            raise SettingError("resumable=True is not allowed: it must be False for a diffusion model")
        if isinstance(prompt, dict) and "prompt_token_ids" in prompt:
            validation.check_prompt(self.vllm_config, prompt["prompt_token_ids"])
        wanted = params.max_tokens
        request = original(self, request_id, prompt, params, *args, **kwargs)
        if request.prompt_token_ids is None or request.prompt_embeds is not None:
            raise SettingError("prompt_embeds is not allowed: a diffusion model's prompt must be token ids")
        own = request.sampling_params
        own.max_tokens = wanted  # vLLM's own default is the room that is left
        encode = validation.encoder(self.vllm_config, self.tokenizer)
        checked = validation.check_request(self.vllm_config, own, request.prompt_token_ids, encode)
        own.max_tokens, own.extra_args = checked.max_tokens, checked.extra_args
        if checked.target is not None and own.extra_args is not None:
            own.extra_args[CARRIER] = checked.target.pack()
        validation.check_looks(checked.settings.policy, kwargs.get("supported_tasks") or args[0])
        if asked is not None:
            built = format_requests.builder_of(self.model_config).submit(asked).result()
            format_requests.check(self.vllm_config, own, built, request.prompt_token_ids, checked)
            own.extra_args = (own.extra_args or {}) | format_requests.carried(built)
    except SettingError as e:
        raise validation.Refusal.of(e) from e
    return request


def _resolve_watermarking(original, self, params):
    # the one call that beam search makes with its parameters before it starts
    if isinstance(params, BeamSearchParams) and is_ours(self.model_config):
        try:
            validation.check_params(params)
        except SettingError as e:
            raise validation.Refusal.of(e) from e
    return original(self, params)


def apply() -> None:
    wrap(InputProcessor, "process_inputs", _process_inputs)
    wrap(InputProcessor, "resolve_watermarking", _resolve_watermarking)
