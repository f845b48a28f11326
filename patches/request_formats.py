"""What a request's format needs is built beside the server, before the request is answered.

What: in a server of one of our models, when a request has been rendered, the format that it asks for, in whichever
  field, is built in a process of its own, while the server goes on with other requests. If there is none, or it takes
  too much, the request gets HTTP 400. Requests that come another way wait for their format before they are admitted.
  Tools are called in JSON, which needs no more than their schemas: vLLM's structural tags are left out.
Why: the first place where a request's format is known is where vLLM turns tools into a schema, the next one where the
  answer's status has been sent. vLLM has formats built in the engine.
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM lets a plugin bring a backend of structured outputs.
"""

import asyncio
from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_dllm import format_requests
from vllm_dllm.models import is_ours
from vllm_dllm.options import SettingError
from vllm_dllm.patches.wrap import wrap
from vllm_dllm.validation import Refusal


async def _build(model: Any, params: SamplingParams, field: str | None) -> None:
    """Raise Refusal, about `field` if it is the request's own, unless there is such a format."""
    try:
        asked = format_requests.asked_of(params)
        if asked is not None:
            await asyncio.wrap_future(format_requests.builder_of(model).submit(asked))
    except SettingError as e:
        raise Refusal.of(SettingError(str(e), field or e.parameter)) from e


def _field(request: Any) -> str | None:
    """The field of the OpenAI APIs that a request asks for its format with."""
    if getattr(request, "tools", None) and getattr(request, "tool_choice", "none") not in ("none", "auto", None):
        return "tools"
    if (text := getattr(request, "text", None)) is not None and text.format is not None:
        return "text.format"
    form = getattr(request, "response_format", None)
    return None if form is None or form.type == "text" else "response_format"


async def _rendered(original: Any, self: Any, request: Any, kwargs: dict[str, Any]) -> Any:
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse

    field = _field(request)  # rendering makes another one of it
    result = await original(self, request, **kwargs)
    if is_ours(self.model_config) and not isinstance(result, ErrorResponse):
        await _build(self.model_config, SamplingParams(structured_outputs=request.extract_structured_outputs()), field)
    return result


async def _render_chat(original, self, request, **kwargs):
    return await _rendered(original, self, request, kwargs)


async def _render_completion(original, self, request, **kwargs):
    return await _rendered(original, self, request, kwargs)


async def _render_responses(original, self, request, **kwargs):
    return await _rendered(original, self, request, kwargs)


async def _add_request(original, self, request_id, prompt, params, *args, **kwargs):
    if is_ours(self.model_config) and isinstance(params, SamplingParams) and not isinstance(prompt, EngineCoreRequest):
        await _build(self.model_config, params, None)
    return await original(self, request_id, prompt, params, *args, **kwargs)


def _apply_structural_tag(original, self, request):
    # the parser knows no model but its tokenizer, and is made for each request of this server
    return request


def _init_tool_parser(original, self, tokenizer, tools=None):
    original(self, tokenizer, tools)
    if self.structural_tag_model is not None:
        self.supports_required_and_named = True  # in JSON, as without structural tags


def apply() -> None:
    """For a process that serves one of our models; imports the server's handlers."""
    from vllm.parser.abstract_parser import DelegatingParser
    from vllm.renderers.online_renderer import OnlineRenderer
    from vllm.tool_parsers.abstract_tool_parser import ToolParser

    wrap(OnlineRenderer, "render_chat", _render_chat)
    wrap(OnlineRenderer, "render_completion", _render_completion)
    wrap(OnlineRenderer, "render_responses", _render_responses)
    wrap(AsyncLLM, "add_request", _add_request)
    wrap(ToolParser, "__init__", _init_tool_parser)
    wrap(DelegatingParser, "_apply_structural_tag", _apply_structural_tag)
