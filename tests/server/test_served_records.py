"""Records over HTTP: a field of each choice, in a stream that of its last chunk."""

import pytest
import recorded
from served import DRAWN, MESSAGES, QUESTION, UNSURE, text_prompt

RECORD = {"vllm_xargs": {"dllm_record": True, "dllm_block_length": 16}, "return_token_ids": True}


def collect(stream) -> dict[int, tuple[list[int], list[dict]]]:
    """Of each choice of a stream its tokens, and the chunks that have a record."""
    found: dict[int, tuple[list[int], list[dict]]] = {}
    for chunk in stream:
        for choice in chunk.model_dump()["choices"]:
            tokens, records = found.setdefault(choice["index"], ([], []))
            tokens += choice.get("token_ids") or []
            if "dllm_record" in choice:
                records.append(choice)
    return found


def test_of_a_chat(client, server):
    options = {"model": server.model, "messages": [{"role": "user", "content": UNSURE}], "n": 3, "seed": 1, **DRAWN}
    answer = client.chat.completions.create(**options, extra_body=RECORD)
    traces = {int(trace["request_id"].split("_")[0]): trace for trace in server.traces(answer.id, 3)}
    streamed = collect(client.chat.completions.create(**options, extra_body=RECORD, stream=True))
    for choice in answer.model_dump()["choices"]:
        record = choice["dllm_record"]
        recorded.check(record, traces[choice["index"]], choice["token_ids"])
        assert record["prompt_ids"] == server.tokenize(text_prompt(UNSURE)) and choice["routed_experts"] is None
        tokens, (last,) = streamed[choice["index"]]
        assert tokens == choice["token_ids"] and last["dllm_record"] == record and last["finish_reason"]
    assert "dllm_record" not in client.chat.completions.create(**options).model_dump()["choices"][0]


def test_of_text_completions(client, server):
    prompts = [text_prompt(UNSURE), text_prompt(QUESTION)]
    options = {"model": server.model, "prompt": prompts, "n": 2, "seed": 1, "stop": ["1"], **DRAWN}
    answer = client.completions.create(**options, extra_body=RECORD)
    traces = server.traces(answer.id, 4)
    choices = answer.model_dump()["choices"]
    streamed = collect(client.completions.create(**options, extra_body=RECORD, stream=True))
    assert len(choices) == len(streamed) == 4
    for choice in choices:
        number, draw = divmod(choice["index"], 2)
        record = choice["dllm_record"]
        (trace,) = (t for t in traces if t["request_id"] == f"{draw}_{answer.id}-{number}")
        recorded.check(record, trace, choice["token_ids"])
        assert record["prompt_ids"] == server.tokenize(prompts[number])
        tokens, (last,) = streamed[choice["index"]]
        assert tokens == choice["token_ids"] and last["dllm_record"] == record and last["finish_reason"]


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/responses", {"input": QUESTION}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 40}),
        ("/v1/chat/completions/batch", {"messages": [MESSAGES, MESSAGES]}),
    ],
)
def test_other_apis_refuse_it(server, path, body):
    answer = server.post(path, body | {"vllm_xargs": {"dllm_record": True}})
    assert answer.status_code == 400
    assert "dllm_record=" in answer.text and "is not allowed in this API" in answer.text
