"""A client is told why its request failed.

What: in a server of one of our models, a request that the engine ended with finish reason `error` and a sentence
  (vllm_dllm.failed) is answered with HTTP 500 and that sentence, or with an error event that has it where the response
  streams. In the Responses and Messages APIs a stream that fails, for whatever reason, ends with an error event.
Why: vLLM says "Internal server error", whatever the engine knows. The error event of its Responses API does not pass
  its own validation, so that the connection breaks; that of its Messages API speaks of a failed validation.
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM hands on an engine's reason with finish reason `error`, and has an error event in the Responses API.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from openai.types.responses import ResponseErrorEvent
from vllm.exceptions import GenerationError, VLLMServerError
from vllm.logger import init_logger
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_dllm.models import is_ours
from vllm_dllm.patches.wrap import wrap

logger = init_logger(f"vllm.{__name__}")


async def _until_failed(outputs: AsyncGenerator[RequestOutput, None]) -> AsyncGenerator[RequestOutput, None]:
    async with aclosing(outputs):  # a client that goes away ends the request at once
        async for output in outputs:
            for answer in output.outputs:
                if answer.finish_reason == "error" and answer.stop_reason:
                    raise GenerationError(str(answer.stop_reason))
            yield output


def _generate(original, self, *args, **kwargs):
    outputs = original(self, *args, **kwargs)
    return _until_failed(outputs) if is_ours(self.model_config) else outputs


async def _responses_stream_generator(original, self, *args, **kwargs) -> AsyncGenerator[Any, None]:
    from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

    count = 0
    try:
        async with aclosing(original(self, *args, **kwargs)) as events:
            async for event in events:
                count += 1
                yield event
    except Exception as e:
        logger.error("A streamed response ends with an error: %s", e)
        error = create_error_response(e).error
        event = {"type": "error", "code": error.type, "message": error.message, "param": error.param}
        # OpenAI's clients look for `error` to raise an exception
        yield ResponseErrorEvent.model_validate(event | {"sequence_number": count, "error": error.model_dump()})


def _convert_generation_error(original, self, e: GenerationError) -> str:
    raise e  # out of the generator, to the function above: vLLM's own event would be refused by its validation


def _message_stream_converter(original, self, generator):
    return original(self, _raising(generator))


async def _raising(chat: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """A chat's stream, whose error event becomes an exception: of that the Messages API makes an event of its own.

    vLLM 0.32 hands on the text of events; 0.33 objects, of which it makes the right event itself.
    """
    async with aclosing(chat):
        async for event in chat:
            if isinstance(event, str) and event.startswith('data: {"error"'):
                raise VLLMServerError(json.loads(event[len("data: ") :])["error"]["message"])
            yield event


def apply() -> None:
    """For a process that serves one of our models; imports the server's handlers."""
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    wrap(AsyncLLM, "generate", _generate)
    wrap(OpenAIServingResponses, "responses_stream_generator", _responses_stream_generator)
    wrap(OpenAIServingResponses, "_convert_generation_error_to_streaming_response", _convert_generation_error)
    wrap(AnthropicServingMessages, "message_stream_converter", _message_stream_converter)
