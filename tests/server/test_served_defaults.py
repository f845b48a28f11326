"""A checkpoint whose own defaults cannot all be honoured is served, over HTTP (behind an API key) and offline."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from common import CHECKPOINTS, Engine
from served import GEN_LENGTH, MESSAGES, Server, text_prompt
from server_process import start, stop, wait_until_healthy

KEY = "none"  # which the clients of these tests send, and other servers do not look at
SEVEN = 31  # the token "7", here one that ends a response
# as Qwen2.5 models ship it, and more
GENERATION = {
    "max_new_tokens": 16,
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "repetition_penalty": 1.05,
    "min_p": 0.05,
    "eos_token_id": [0, None, SEVEN],
    "pad_token_id": None,
    "a_key_of_nobody": "x",
}
SET_ASIDE = [
    "max_new_tokens=16",
    "repetition_penalty=1.05",
    "min_p=0.05",
    "eos_token_id=None",
    "pad_token_id=None",
    "a_key_of_nobody='x'",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("defaults") / "checkpoint"
    shutil.copytree(CHECKPOINTS / "tiny-llada", path)
    config = json.loads((path / "config.json").read_text()) | {"eos_token_id": None, "pad_token_id": None}
    (path / "config.json").write_text(json.dumps(config))
    (path / "generation_config.json").write_text(json.dumps(GENERATION))
    return path


def test_offline(checkpoint):
    with closing(Engine(str(checkpoint), checkpoint.parent / "offline.jsonl")) as engine:
        params = engine.llm.get_default_sampling_params()
        assert (params.temperature, params.top_p, params.top_k) == (0.7, 0.8, 20)
        assert (params.repetition_penalty, params.min_p, params.max_tokens) == (1.0, 0.0, 256)
        (answer,) = engine.llm.chat(MESSAGES, use_tqdm=False)
        assert answer.outputs[0].finish_reason == "stop"
        engine.check_idle()


@pytest.fixture(scope="module")
def server(checkpoint) -> Iterator[Server]:
    server = start(checkpoint.parent, str(checkpoint), api_key=KEY, dllm_watch="true")
    try:
        wait_until_healthy(server)
        yield server
    finally:
        stop(server)


def test_every_endpoint_answers_requests_that_name_nothing(server, client):
    assert server.tokenize("7") == [SEVEN]
    chat = client.chat.completions.create(model=server.model, messages=MESSAGES)
    text = client.completions.create(model=server.model, prompt=text_prompt(MESSAGES[0]["content"]))
    response = client.responses.create(model=server.model, input=MESSAGES[0]["content"])
    assert chat.choices[0].finish_reason == text.choices[0].finish_reason == "stop"
    assert response.status == "completed"
    for answer in (chat, text, response):
        trace = server.trace(answer.id)
        assert trace["gen_length"] == GEN_LENGTH, "the checkpoint's max_new_tokens is no length of a response"


def test_each_of_several_end_tokens_ends_a_response(server, client):
    """3 7 11 15 19 23, were it not for the 7."""
    answer = client.chat.completions.create(model=server.model, messages=MESSAGES, temperature=0)
    assert answer.choices[0].message.content == "3 "
    whole = {"temperature": 0, "max_tokens": 32, "extra_body": {"ignore_eos": True}}
    answer = client.chat.completions.create(model=server.model, messages=MESSAGES, **whole)
    assert answer.choices[0].message.content.startswith("3 7 11 15 19 23")
    assert answer.usage.completion_tokens == 32


def test_the_log_says_what_was_set_aside(server, checkpoint):
    log = server.log_file.read_text()
    for item in SET_ASIDE:
        assert f"{checkpoint}/generation_config.json: {item} is set aside: " in log
    assert log.count(" is set aside: ") == len(SET_ASIDE)


def test_the_live_page_asks_for_the_servers_key(server, browser):
    context = browser.new_context()
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(server.url + "/dllm")
    for key in ("wrong", KEY):
        page.wait_for_selector("#key[open]")
        page.fill("#token", key)
        page.click("text=Go on")
    page.wait_for_function("document.querySelector('#state').textContent == 'watching'")
    page.fill("#prompt", "7 7 7")
    page.click("text=Run")
    page.wait_for_selector("article.ended")
    context.close()
    for path in ("", "/settings", "/trace?id=x"):
        assert httpx.get(f"{server.url}/v1/dllm/watch{path}", timeout=30).status_code == 401
