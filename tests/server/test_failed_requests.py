"""A request that the engine cannot finish gets HTTP 500 and is told why; its neighbours get their answers."""

import json
import threading

import httpx
import openai
import pytest
from damaged import DAMAGED, DAMAGED_ID
from served import ANSWER, MESSAGES

WHY = "the model's output is not finite (NaN or infinite logits)"


ASKED = f"echo a{DAMAGED}b"
REQUESTS = {  # an API's path -> a request that meets the damage
    "/v1/chat/completions": {"messages": [{"role": "user", "content": ASKED}]},
    "/v1/completions": {"prompt": ASKED},
    "/v1/responses": {"input": ASKED},
    "/v1/messages": {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 32},
}


@pytest.mark.parametrize("path", REQUESTS)
def test_answered_with_status_500(damaged, path):
    for more in ({}, {"temperature": 1.0}, {"vllm_xargs": {"dllm_cache": "dual"}}, {"logprobs": True}):
        if "logprobs" in more and "completions" not in path:
            continue
        response = damaged.post(path, REQUESTS[path] | more)
        error = response.json()["error"]
        assert response.status_code == 500, (more, response.text)
        assert WHY in error["message"], (more, error)
    damaged.wait_idle()


@pytest.mark.parametrize("path", REQUESTS)
def test_a_stream_ends_with_an_error_event(damaged, path):
    body = {"model": damaged.model, "stream": True} | REQUESTS[path]
    with httpx.stream("POST", damaged.url + path, json=body, timeout=60) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
    assert WHY in events[-1]["error"]["message"], events
    damaged.wait_idle()


def test_likelihoods_beside_it_are_not_kept_waiting(damaged):
    pairs = [["echo ab", "ab"], [ASKED, "ab"], ["echo cd", ASKED]]
    response = damaged.post("/v1/dllm/loglikelihood", {"pairs": pairs})
    assert response.status_code == 500 and WHY in response.json()["error"]["message"], response.text
    assert damaged.post("/v1/dllm/loglikelihood", {"pairs": pairs[:1]}).status_code == 200
    for field in ({"echo": True, "logprobs": 1}, {"prompt_logprobs": 0}):
        assert damaged.post("/v1/completions", {"prompt": ASKED} | field).status_code == 500
    damaged.wait_idle()


def test_several_answers_and_prompts(damaged):
    with damaged.client() as client:
        for options in (
            {"prompt": ASKED, "n": 2, "temperature": 1.0},
            {"prompt": ["echo abc", ASKED]},
            {"prompt": [[20, 21], [DAMAGED_ID]]},
        ):
            with pytest.raises(openai.InternalServerError, match="not finite"):
                client.completions.create(model=damaged.model, **options)
    damaged.wait_idle()


def test_the_trace_and_the_metrics_have_it(damaged):
    before = damaged.metric("request_success_total")
    with damaged.client() as client, pytest.raises(openai.InternalServerError):
        client.completions.create(
            model=damaged.model, prompt=ASKED, extra_headers={"X-Request-Id": "to-be-found"}, max_tokens=32
        )
    assert damaged.trace("to-be-found")["finish_reason"] == "error"
    text = httpx.get(damaged.url + "/metrics", timeout=30).text
    assert any('finished_reason="error"' in x and float(x.split()[-1]) > 0 for x in text.splitlines() if x[0] != "#")
    assert damaged.metric("request_success_total") == before + 1


def test_neighbours_get_their_answers(damaged):
    """Sixteen good requests at once with as many that fail."""
    answers: list[str] = []
    failures: list[str] = []

    def ask(content: str) -> None:
        with damaged.client() as client:
            messages = [{"role": "user", "content": content}]
            try:
                reply = client.chat.completions.create(model=damaged.model, messages=messages)
                answers.append(reply.choices[0].message.content)
            except openai.InternalServerError as e:
                failures.append(e.message)

    asked = [MESSAGES[0]["content"], ASKED] * 16
    threads = [threading.Thread(target=ask, args=(content,)) for content in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert answers == [ANSWER] * 16
    assert len(failures) == 16 and all(WHY in f for f in failures)
    damaged.wait_idle()
