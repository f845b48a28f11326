"""What the fields of a server's APIs ask for, in the client's own words.

A request becomes SamplingParams, which validation.py checks. Some of what it asks for has another name there or is lost
on the way: such fields are checked here, before anything is done with the request.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from vllm.sampling_params import SamplingParams

from vllm_dllm.catalogue import check_attention
from vllm_dllm.given_text import SUFFIX
from vllm_dllm.options import SettingError
from vllm_dllm.settings import given
from vllm_dllm.validation import ONCE, REFUSED, UNBUILT, refusal


class Field(NamedTuple):
    """A field of requests. `harmless` says of a value, which is not None, whether it asks for nothing special."""

    harmless: Callable[[Any], bool]
    allowed: str
    why: str = UNBUILT


def _free(choice: Any) -> bool:
    return choice in ("none", "auto")


# a field -> when it is refused. That of a structure is written with a dot.
FIELDS = {
    "guided_json": Field(lambda _: False, "None", "structured_outputs has taken its place"),
    "guided_regex": Field(lambda _: False, "None", "structured_outputs has taken its place"),
    "guided_choice": Field(lambda _: False, "None", "structured_outputs has taken its place"),
    "guided_grammar": Field(lambda _: False, "None", "structured_outputs has taken its place"),
    "use_beam_search": Field(lambda use: not use, "False", ONCE),
    "best_of": Field(lambda n: n == 1, "1"),
    "logits_processors": Field(lambda them: not them, "None"),
    "kv_transfer_params": Field(lambda them: not them, "None"),
    "ec_transfer_params": Field(lambda them: not them, "None"),
    # vLLM does without these, and says nothing
    "functions": Field(lambda them: not them, "None", "tools has taken its place"),
    "function_call": Field(_free, "None", "tool_choice has taken its place"),
    "conversation": Field(lambda _: False, "None", "the server keeps none"),
    "previous_input_messages": Field(lambda them: not them, "None", "they are read for gpt-oss models only"),
    "modalities": Field(lambda them: them == ["text"], "['text']", "the model writes text"),
    "audio": Field(lambda _: False, "None", "the model writes text"),
    "web_search_options": Field(lambda _: False, "None", "the server searches no web"),
}
# what another API has and would change the answer, beside the fields of SamplingParams
OF_ANOTHER_API = {"response_format", "text", "tools", "tool_choice", "suffix", "echo"}
NOTHING: tuple[Any, ...] = (False, "", [], {}, "none", "auto")


def check_fields(request: Any, tool_parser: Any, auto_tools: bool, by_priority: bool) -> None:
    """Raise SettingError for a field of an OpenAI request (vLLM's model of it) that cannot be honoured.

    `tool_parser` is the class that reads the server's tool calls, None if it was started without; `auto_tools` is
    whether it lets a model choose to call one, `by_priority` whether its scheduler heeds priorities.
    """
    own, extra = type(request).model_fields, request.model_extra or {}
    for key, value in given(extra).items():
        raise SettingError(f"{key}={value!r} is not allowed beside a request's fields: it must be in vllm_xargs")
    for name, field in FIELDS.items():
        top = name.partition(".")[0]
        value = _value(request, name) if top in own or top not in OF_ANOTHER_API else None
        if value is not None and not field.harmless(value):
            raise refusal(name, value, field.allowed, field.why)
    _check_extra(extra)
    if getattr(request, "tools", None):
        _check_tool_choice(request.tool_choice, tool_parser, auto_tools)
    if getattr(request, "priority", 0) and not by_priority:
        raise refusal("priority", request.priority, "0", "the server was not started with --scheduling-policy priority")


def take_suffix(request: Any, attention: str) -> None:
    """Make a text completion's `suffix` its `dllm_suffix`. Raises SettingError where it has one already, or where the
    model cannot see it."""
    suffix = getattr(request, "suffix", None)
    if suffix is None or "suffix" not in type(request).model_fields:
        return
    try:
        check_attention({SUFFIX.key: suffix}, attention)
    except SettingError as e:  # without the prefix, as it was given
        raise SettingError(str(e).removeprefix("dllm_"), "suffix") from e
    own = given(request.vllm_xargs)
    if SUFFIX.key in own:
        raise SettingError(
            f"suffix={suffix!r} is not allowed with {SUFFIX.key}={own[SUFFIX.key]!r}: they are the same thing"
        )
    request.vllm_xargs = (request.vllm_xargs or {}) | {SUFFIX.key: suffix}
    request.suffix = None


def _value(request: Any, name: str) -> Any:
    for part in name.split("."):
        request = getattr(request, part, None)
    return request


def _check_extra(extra: dict[str, Any]) -> None:
    """Fields that this API does not have: vLLM drops them, whatever they ask for."""
    plain = SamplingParams()
    for name, value in extra.items():
        if name in OF_ANOTHER_API:
            asks = value not in NOTHING
        elif name in SamplingParams.__struct_fields__ and name != "max_tokens":  # that is honoured (max_tokens.py)
            asks = value not in (getattr(plain, name), *REFUSED.get(name, [()])[0])
        else:
            continue
        if value is not None and asks:
            raise refusal(name, value, "left out", "this API has no such field")


def _check_tool_choice(choice: Any, tool_parser: Any, auto_tools: bool) -> None:
    if choice in (None, "none"):
        return
    if choice == "auto":
        if tool_parser is None or not auto_tools:
            raise SettingError(
                "tools with tool_choice='auto' are not allowed: tool_choice must be 'none', unless the server is started "
                "with --enable-auto-tool-choice and --tool-call-parser",
                "tools",
            )
    elif tool_parser is None:
        why = "the server was not started with --enable-auto-tool-choice and --tool-call-parser"
        raise refusal("tool_choice", choice, "'none'", why)
    elif not (tool_parser.supports_required_and_named or tool_parser.structural_tag_model):  # request_formats.py
        why = f"the server's tool parser, {tool_parser.__name__}, reads no calls in JSON, which can be guaranteed"
        raise refusal("tool_choice", choice, "'auto' or 'none'", why)
