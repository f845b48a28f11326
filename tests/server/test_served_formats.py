"""Guaranteed formats over HTTP, as the `openai` client asks for them."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import httpx
import pytest
from pydantic import BaseModel, Field
from served import MESSAGES, UNSURE, text_prompt


class Sum(BaseModel):
    sums: list[int] = Field(min_length=1, max_length=8)
    sure: bool
    kind: Literal["count", "sum"]


PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a"],
}
TOOLS = [
    {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}}}},
]
HOT = {"temperature": 2.0, "seed": 1, "max_tokens": 120}


@pytest.mark.parametrize("more", [{"max_tokens": 120}, HOT], ids=["greedy", "hot"])
def test_a_pydantic_model(client, server, more):
    answer = client.chat.completions.parse(model=server.model, messages=MESSAGES, response_format=Sum, **more)
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Sum) and 1 <= len(parsed.sums) <= 8


def test_a_streamed_answer_is_the_same(client, server):
    form = {"type": "json_schema", "json_schema": {"name": "sum", "schema": Sum.model_json_schema()}}
    request = {"model": server.model, "messages": MESSAGES, "response_format": form, "max_tokens": 120}
    parts = client.chat.completions.create(stream=True, **request)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == client.chat.completions.create(**request).choices[0].message.content
    Sum.model_validate_json(text)


def test_extra_body_and_completions(client, server):
    for n, wanted in enumerate(
        [{"choice": ["low", "high"]}, {"regex": "(low|high)"}, {"json": {"enum": ["low", "high"]}}]
    ):
        answer = client.completions.create(
            model=server.model, prompt=text_prompt(UNSURE), extra_body={"structured_outputs": wanted}, n=2, **HOT
        )
        assert {choice.text.strip('"') for choice in answer.choices} <= {"low", "high"}, n


def test_the_responses_api(client, server):
    form = {"type": "json_schema", "name": "sum", "schema": Sum.model_json_schema(), "strict": True}
    answer = client.responses.create(model=server.model, input=UNSURE, text={"format": form}, max_output_tokens=120)
    Sum.model_validate_json(answer.output_text)
    answer = client.responses.parse(model=server.model, input=UNSURE, text_format=Sum, max_output_tokens=120)
    assert isinstance(answer.output_parsed, Sum)


def test_any_json_object(client, server):
    answer = client.chat.completions.create(
        model=server.model, messages=MESSAGES, response_format={"type": "json_object"}, **HOT
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}, "response_format", "not={}"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}}, "response_format", "recursive"),
        ({"structured_outputs": {"regex": "a{65}"}}, "max_tokens", "max_tokens=64 is not allowed with this format: it must be at least 65"),
        ({"structured_outputs": {"choice": ["é"]}}, None, "no sequence of the model's tokens"),
        ({"structured_outputs": {"choice": ["ab"]}, "vllm_xargs": {"dllm_template": '["b", 3]'}, "max_tokens": 4}, "dllm_template", "no answer of this length"),
        ({"structured_outputs": {"choice": ["ab"]}, "vllm_xargs": {"vllm_dllm.format": "x"}}, None, "the server's own"),
    ],
    ids=lambda v: str(v)[:50],
)  # fmt: skip
def test_refused(server, fields, param, words, stream):
    response = server.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 64, "stream": stream} | fields)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert words in error["message"] and (param is None or error["param"] == param)


def test_a_format_that_takes_long_stalls_nobody(server):
    """It takes all the time that it may, or all the memory, while others are answered."""
    slow = {"messages": MESSAGES, "structured_outputs": {"regex": "((a{0,90}){0,90}){0,90}b"}}
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(server.post, "/v1/chat/completions", slow)
        time.sleep(0.5)
        answers = 0
        while not refused.done() and answers < 20:
            quick = {"messages": MESSAGES, "max_tokens": 64, "structured_outputs": {"regex": f"a{{{answers}}}b"}}
            answer = server.post("/v1/chat/completions", quick).raise_for_status().json()
            assert answer["choices"][0]["message"]["content"] == "a" * answers + "b"
            answers += 1
        assert answers >= 5, "they waited for it"
        error = refused.result(60)
    assert error.status_code == 400 and "must be smaller" in error.text


def test_tools(damaged):
    server = damaged
    request = {"model": server.model, "messages": MESSAGES, "tools": TOOLS}
    with server.client() as client:
        for more in ({"max_tokens": 120}, HOT):
            answer = client.chat.completions.create(tool_choice="required", **request, **more).choices[0]
            assert answer.message.tool_calls and answer.finish_reason == "tool_calls"
            for call in answer.message.tool_calls:
                assert call.function.name in ("add", "stop") and isinstance(json.loads(call.function.arguments), dict)
            named = {"type": "function", "function": {"name": "add"}}
            answer = client.chat.completions.create(tool_choice=named, **request, **more).choices[0]
            (call,) = answer.message.tool_calls
            assert call.function.name == "add" and 0 <= json.loads(call.function.arguments)["a"] <= 99
        answer = client.chat.completions.create(tool_choice="auto", max_tokens=64, **request).choices[0]
        assert answer.message.content and not answer.message.tool_calls  # what the model says, read by vLLM's parser
        parts = client.chat.completions.create(tool_choice="required", stream=True, max_tokens=120, **request)
        deltas = [
            part.choices[0].delta.tool_calls for part in parts if part.choices and part.choices[0].delta.tool_calls
        ]
        assert deltas and deltas[0][0].function.name in ("add", "stop")
        flat = [{"type": "function", "name": "add", "parameters": PARAMETERS}]
        answer = client.responses.create(
            model=server.model, input=UNSURE, tools=flat, tool_choice="required", max_output_tokens=120
        )
        assert [item.name for item in answer.output if item.type == "function_call"]


def test_a_server_that_was_not_asked_to_has_no_live_page(damaged):
    for path in ("/dllm", "/dllm/watch.js", "/v1/dllm/watch", "/v1/dllm/watch/settings", "/v1/dllm/watch/trace?id=x"):
        assert httpx.get(damaged.url + path, timeout=30).status_code == 404
