"""Every field of a request is honoured, or refused in the client's own words, with `param`; streamed or not."""

import pytest
from served import ANSWER, MESSAGES, QUESTION, text_prompt

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
FLAT_TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
SCHEMA = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
TAG = {"type": "structural_tag", "triggers": ["<a"], "structures": [{"begin": "<a>", "schema": {}, "end": "</a>"}]}

CHAT = ("/v1/chat/completions", {"messages": MESSAGES})
COMPLETION = ("/v1/completions", {"prompt": text_prompt(QUESTION)})
RESPONSES = ("/v1/responses", {"input": QUESTION})
ALL = list(range(128))

# (where, fields, param, what the message says of it)
REFUSED = [
    (CHAT, {"tools": [TOOL], "tool_choice": "required"}, "tool_choice", "='required' is not allowed"),
    (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "'f'"),
    (CHAT, {"tools": [TOOL]}, "tools", "--tool-call-parser"),
    (CHAT, {"functions": [TOOL["function"]]}, "functions", "tools has taken its place"),
    (CHAT, {"function_call": {"name": "f"}}, "function_call", "tool_choice has taken its place"),
    (CHAT, {"text": {"format": SCHEMA}}, "text", "no such field"),
    (CHAT, {"suffix": "abc"}, "suffix", "no such field"),
    (CHAT, {"modalities": ["text", "audio"]}, "modalities", "it must be ['text']"),
    (CHAT, {"thinking_token_budget": 5}, "thinking_token_budget", "=5 is not allowed"),
    (CHAT, {"kv_transfer_params": {"do_remote_prefill": True}}, "kv_transfer_params", "not built"),
    (COMPLETION, {"suffix": "abc", "vllm_xargs": {"dllm_suffix": "d"}}, "suffix", "they are the same thing"),
    (COMPLETION, {"tools": [TOOL], "tool_choice": "required"}, "tools", "no such field"),
    (RESPONSES, {"tools": [FLAT_TOOL], "tool_choice": "required"}, "tool_choice", "='required' is not allowed"),
    (RESPONSES, {"tools": [FLAT_TOOL], "tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "'f'"),
    (RESPONSES, {"tools": [FLAT_TOOL]}, "tools", "--tool-call-parser"),
    (RESPONSES, {"structured_outputs": {"grammar": "x"}}, "structured_outputs.grammar", "='x'"),
    (RESPONSES, {"response_format": {"type": "json_object"}}, "response_format", "no such field"),
    (RESPONSES, {"n": 2}, "n", "=2 is not allowed"),
    (RESPONSES, {"min_tokens": 2}, "min_tokens", "no such field"),
    (RESPONSES, {"logit_bias": {"500": 1.0}}, "logit_bias", "with token 500"),
    (RESPONSES, {"bad_words": ["7"]}, "bad_words", "no such field"),
    (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens", "=0 is not allowed: it must be at least 1"),
    (RESPONSES, {"max_output_tokens": 500}, "max_output_tokens", "=500 is not allowed"),
    (RESPONSES, {"conversation": "c"}, "conversation", "the server keeps none"),
    (RESPONSES, {"background": True}, "background", "store"),
    (RESPONSES, {"dllm_steps": 8}, "dllm_steps", "must be in vllm_xargs"),
]

# fields that ask for nothing special, or for what there is
HONOURED = [
    (CHAT, {"response_format": {"type": "text"}, "tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False}),
    (
        CHAT,
        {"best_of": 1, "logit_bias": {}, "bad_words": [], "min_tokens": 0, "repetition_penalty": 1.0, "priority": 0},
    ),
    (CHAT, {"function_call": "none", "modalities": ["text"], "text": None, "echo": False}),
    (CHAT, {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "flex", "reasoning_effort": "low"}),
    (CHAT, {"max_completion_tokens": 64, "max_tokens": 8}),
    (COMPLETION, {"max_tokens": 64, "response_format": {"type": "text"}, "n": 1, "thinking_token_budget": -1}),
    (
        RESPONSES,
        {"text": {"format": {"type": "text"}, "verbosity": "low"}, "tool_choice": "none", "tools": [FLAT_TOOL]},
    ),
    (CHAT, {"logit_bias": {"5": 1}, "min_p": 0.1, "presence_penalty": 0.1, "bad_words": ["abc"], "min_tokens": 3}),
    (COMPLETION, {"max_tokens": 64, "repetition_penalty": 1.01, "frequency_penalty": 0.01, "allowed_token_ids": ALL}),
    (RESPONSES, {"logit_bias": {"5": 1}, "min_p": 0.1, "presence_penalty": 0.1, "repetition_penalty": 1.01}),
    (RESPONSES, {"n": 1, "min_tokens": 0, "store": False, "truncation": "auto", "reasoning": {"effort": "low"}}),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("where, fields, param, words", REFUSED, ids=lambda v: str(v)[:60])
def test_refused_by_name(server, where, fields, param, words, stream):
    path, body = where
    response = server.post(path, body | fields | {"stream": stream})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(param) or param == "background"
    assert words in error["message"]
    assert "structured_outputs" not in error["message"] or param.startswith("structured_outputs")


@pytest.mark.parametrize("where, fields", HONOURED, ids=lambda v: str(v)[:60])
def test_honoured(server, where, fields):
    path, body = where
    response = server.post(path, body | fields)
    assert response.status_code == 200, response.text
    assert ANSWER in response.text


def test_a_completion_echoes_its_prompt(server):
    path, body = COMPLETION
    for length, text in ((64, body["prompt"] + ANSWER), (0, body["prompt"])):
        answer = server.post(path, body | {"echo": True, "max_tokens": length}).json()
        assert answer["choices"][0]["text"] == text


def test_a_response_to_a_prompt_without_room(server):
    path, _ = RESPONSES
    error = server.post(path, {"input": "x" * 509}).json()["error"]
    assert error["param"] == "input" and "512" in error["message"]
