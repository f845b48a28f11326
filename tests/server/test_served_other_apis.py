"""The rest of what the server answers: models, tokens, metrics, the Responses and Messages APIs."""

import json

import httpx
import openai
import pytest
from served import ANSWER, GEN_LENGTH, MAX_MODEL_LEN, MESSAGES, QUESTION, streamed, text_prompt


def test_models(client, server):
    (model,) = client.models.list().data
    assert model.id == server.model
    assert model.model_extra["max_model_len"] == MAX_MODEL_LEN


def test_tokenize(server):
    tokens = server.tokenize(text_prompt("echo abc"))
    assert server.post("/tokenize", {"messages": MESSAGES}).json()["tokens"] == server.tokenize(text_prompt(QUESTION))
    assert server.post("/detokenize", {"tokens": tokens}).json()["prompt"] == text_prompt("echo abc")


def test_metrics(client, server):
    names = ("prompt_tokens_total", "generation_tokens_total")
    before = [server.metric(name) for name in names]
    usage = client.chat.completions.create(model=server.model, messages=MESSAGES).usage
    server.wait_idle()
    after = [server.metric(name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [usage.prompt_tokens, usage.completion_tokens]


def test_responses(client, server):
    answer = client.responses.create(model=server.model, input=QUESTION)
    assert answer.output_text == ANSWER
    assert answer.status == "completed"
    assert answer.max_output_tokens == GEN_LENGTH
    assert answer.usage.output_tokens == len(ANSWER) + 1
    assert server.trace(answer.id)["gen_length"] == GEN_LENGTH


def test_responses_of_a_length(client, server):
    answer = client.responses.create(model=server.model, input=QUESTION, max_output_tokens=8)
    assert answer.output_text == ANSWER[:8]
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert server.trace(answer.id)["gen_length"] == 8


def test_responses_stream(client, server):
    def deltas(events) -> list[str]:
        return [e.delta for e in events if e.type == "response.output_text.delta"]

    ask = {"model": server.model, "input": QUESTION, "stream": True}
    events = streamed(lambda: list(client.responses.create(**ask)), deltas)
    assert "".join(deltas(events)) == ANSWER
    assert events[-1].type == "response.completed"
    assert server.trace(events[-1].response.id)["gen_length"] == GEN_LENGTH


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "options, words",
    [
        ({"max_output_tokens": 510}, ["=510 is not allowed", "at most 512"]),
        ({"extra_body": {"presence_penalty": 2.5}}, ["presence_penalty", "2.5"]),
        ({"extra_body": {"vllm_xargs": {"dllm_steps": 0}}}, ["dllm_steps=0", "at least 1"]),
    ],
)
def test_responses_refused(client, server, options, words, stream):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model=server.model, input=QUESTION, stream=stream, **options)
    for word in words:
        assert word in refusal.value.message


def test_messages(server):
    answer = server.post("/v1/messages", {"messages": MESSAGES, "max_tokens": 40}).json()
    assert answer["content"] == [{"type": "text", "text": ANSWER}]
    assert answer["stop_reason"] == "end_turn"
    assert answer["usage"]["output_tokens"] == len(ANSWER) + 1
    assert server.trace(answer["id"])["gen_length"] == 40
    stopped = server.post("/v1/messages", {"messages": MESSAGES, "max_tokens": 40, "stop_sequences": [" 15"]}).json()
    assert (stopped["content"][0]["text"], stopped["stop_reason"]) == (ANSWER.split(" 15")[0], "stop_sequence")


def test_messages_stream(server):
    body = {"model": server.model, "messages": MESSAGES, "max_tokens": 40, "stream": True}

    def texts() -> list[str]:
        with httpx.stream("POST", server.url + "/v1/messages", json=body, timeout=60) as response:
            events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
        return [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]

    assert "".join(streamed(texts, list)) == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_messages_refused(server, stream):
    response = server.post("/v1/messages", {"messages": MESSAGES, "max_tokens": 510, "stream": stream})
    assert response.status_code == 400
    assert "max_tokens=510 is not allowed" in response.json()["error"]["message"]


def test_no_pooling(server):
    assert server.post("/v1/embeddings", {"input": "x"}).status_code == 404
    assert (
        server.post("/generative_scoring", {"query": "a", "items": ["b"], "label_token_ids": [20]}).status_code == 400
    )
