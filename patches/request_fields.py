"""A request's fields are honoured or refused, by their own names.

What: in a server of one of our models, an OpenAI request that has a field which cannot be honoured (vllm_dllm.fields),
  or a `dllm_*` key beside its own fields instead of in `vllm_xargs`, gets HTTP 400. A `suffix` becomes `dllm_suffix`.
Why: vLLM turns some fields into others before a plugin sees them (`response_format` and `tool_choice` into
  `structured_outputs`, `echo` into `prompt_logprobs`), and drops those it does not know with a line in the log: the
  request would be refused for what it does not have, or answered as if it had not asked. A `suffix` it makes part of
  the prompt, for models that were trained so, and refuses for all others.
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM refuses fields it does not know, and lets a plugin see a request as it came.
"""

from pydantic import BaseModel

from vllm_dllm.engine_config import model_traits
from vllm_dllm.fields import check_fields, take_suffix
from vllm_dllm.options import SettingError
from vllm_dllm.patches.wrap import wrap
from vllm_dllm.validation import Refusal


async def _check_model(original, self, request):
    """The first thing that each of vLLM's handlers does with a request."""
    renderer, engine = getattr(self, "online_renderer", None), getattr(self, "engine_client", None)
    if renderer is not None and engine is not None and isinstance(request, BaseModel):
        parser = renderer.parser and renderer.parser.tool_parser_cls
        by_priority = engine.vllm_config.scheduler_config.policy == "priority"
        try:
            check_fields(request, parser, renderer.enable_auto_tools, by_priority)
            take_suffix(request, model_traits(engine.vllm_config).attention)
        except SettingError as e:
            raise Refusal.of(e) from e
    return await original(self, request)


def apply() -> None:
    """For a process that serves one of our models; imports the server's handlers."""
    from vllm.entrypoints.serve.engine.serving import BaseServing

    wrap(BaseServing, "_check_model", _check_model)
