"""A choice of the server's answers has its record.

What: in a server of one of our models, the choices of chats, text completions and `/inference/v1/generate` have a field
  `dllm_record` where the request asked for one; of a stream it is in the choice's last chunk. Other APIs refuse a
  request that asks for one.
Why: vLLM's server hands on what it knows of an answer, and nothing that a plugin adds. (What carries the record,
  carried_records.py, it would hand on as `routed_experts`, in some of these.)
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM hands on what an engine's plugin adds to an answer.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from vllm.outputs import RequestOutput

from vllm_dllm.catalogue import RECORD
from vllm_dllm.models import is_ours
from vllm_dllm.options import SettingError
from vllm_dllm.patches.answer_records import dllm_record
from vllm_dllm.patches.wrap import wrap
from vllm_dllm.settings import given
from vllm_dllm.validation import Refusal

Records = dict[int, dict[str, Any]]  # by the choice's index

HANDLERS = ("OpenAIServingChat", "OpenAIServingCompletion", "ServingTokens")  # not those derived from them


async def _watched(results: AsyncGenerator[Any, None], choices: int, found: Records) -> AsyncGenerator[Any, None]:
    """`results`, and meanwhile the records `found` in them. Those of text completions come with their prompt's number."""
    async with aclosing(results):
        async for result in results:
            prompt, output = result if isinstance(result, tuple) else (0, result)
            _find(prompt * choices, output, found)
            yield result


def _find(first: int, output: RequestOutput, found: Records) -> None:
    for answer in output.outputs:
        if (record := dllm_record(answer)) is not None:
            found[first + answer.index] = record


def _put(choices: list[Any], found: Records) -> None:
    for choice in choices:
        if choice.index in found:
            choice.dllm_record = found[choice.index]
            choice.routed_experts = None


async def _stream(chunks: AsyncGenerator[str, None], found: Records) -> AsyncGenerator[str, None]:
    async with aclosing(chunks):  # a client that goes away ends the request at once
        async for chunk in chunks:
            yield _with_records(chunk, found) if found else chunk


def _with_records(chunk: str, found: Records) -> str:
    if not chunk.startswith("data: {"):
        return chunk
    body = json.loads(chunk[len("data: ") :])
    for choice in body.get("choices", ()):
        if choice.get("finish_reason") and choice["index"] in found:
            choice["dllm_record"] = found.pop(choice["index"])
            choice.pop("routed_experts", None)
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _full_generator(original, self, request, result_generator, *args, **kwargs):
    if not is_ours(self.model_config):
        return await original(self, request, result_generator, *args, **kwargs)
    found: Records = {}
    response = await original(self, request, _watched(result_generator, 1, found), *args, **kwargs)
    _put(getattr(response, "choices", []), found)
    return response


def _stream_generator(original, self, request, result_generator, *args, **kwargs):
    if not is_ours(self.model_config):
        return original(self, request, result_generator, *args, **kwargs)
    found: Records = {}
    return _stream(original(self, request, _watched(result_generator, 1, found), *args, **kwargs), found)


def _completion(original, self, final_res_batch, request, *args, **kwargs):
    response = original(self, final_res_batch, request, *args, **kwargs)
    found: Records = {}
    for number, output in enumerate(final_res_batch):
        _find(number * (request.n or 1), output, found)
    _put(response.choices, found)
    return response


def _completion_stream(original, self, request, engine_inputs, result_generator, *args, **kwargs):
    if not is_ours(self.model_config):
        return original(self, request, engine_inputs, result_generator, *args, **kwargs)
    found: Records = {}
    results = _watched(result_generator, request.n or 1, found)
    return _stream(original(self, request, engine_inputs, results, *args, **kwargs), found)


async def _check_model(original, self, request):
    own = given(getattr(request, "vllm_xargs", None))
    if own.get(RECORD.key) and type(self).__name__ not in HANDLERS:
        raise Refusal.of(
            SettingError(
                f"{RECORD.key}={own[RECORD.key]!r} is not allowed in this API, whose answers have no room for a record: "
                "/v1/chat/completions and /v1/completions have"
            )
        )
    return await original(self, request)


def apply() -> None:
    """For a process that serves one of our models; imports the server's handlers."""
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.entrypoints.scale_out.token_in_token_out.serving import ServingTokens
    from vllm.entrypoints.serve.engine.serving import BaseServing

    wrap(OpenAIServingChat, "chat_completion_full_generator", _full_generator)
    wrap(OpenAIServingChat, "chat_completion_stream_generator", _stream_generator)
    wrap(OpenAIServingCompletion, "request_output_to_completion_response", _completion)
    wrap(OpenAIServingCompletion, "completion_stream_generator", _completion_stream)
    wrap(ServingTokens, "serve_tokens_full_generator", _full_generator)
    wrap(ServingTokens, "serve_tokens_stream_generator", _stream_generator)
    wrap(BaseServing, "_check_model", _check_model)
