"""Streams: what they say, when they say it, and what happens when the client goes away."""

import asyncio
import contextlib

import httpx
import pytest
from served import ANSWER, DRAWN, LONG, MESSAGES, QUESTION, UNSURE, streamed, text_prompt

SLOW = {"max_tokens": 480, "extra_body": {"ignore_eos": True, "vllm_xargs": {"dllm_steps": 480}}}


def contents(chunks) -> list[str]:
    return [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]


def test_chat_stream(client, server):
    whole = client.chat.completions.create(model=server.model, messages=MESSAGES)
    ask = {"model": server.model, "messages": MESSAGES, "stream": True}
    chunks = streamed(lambda: list(client.chat.completions.create(**ask)), contents)
    assert "".join(contents(chunks)) == whole.choices[0].message.content == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert all(c.usage is None for c in chunks)
    assert len({c.id for c in chunks}) == 1


def test_completion_stream(client, server):
    options = {"model": server.model, "prompt": text_prompt(QUESTION)}
    chunks = streamed(
        lambda: list(client.completions.create(**options, stream=True)),
        lambda chunks: [c for c in chunks if c.choices[0].text],
    )
    assert "".join(c.choices[0].text for c in chunks) == ANSWER
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_usage_of_a_stream(client, server):
    options = {"model": server.model, "messages": MESSAGES}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(c.usage is None for c in chunks[:-1])
    text = {"model": server.model, "prompt": text_prompt(QUESTION), "stream": True}
    assert list(client.completions.create(**text, stream_options={"include_usage": True}))[-1].usage == whole.usage


def test_tokens_come_as_soon_as_the_prefix_is_final(client, server):
    """Each chunk ends where the unmasked prefix ended after some pass, and the first comes while passes are left."""
    options = {"model": server.model, "messages": MESSAGES, "stream": True} | LONG
    options["extra_body"] = options["extra_body"] | {"return_token_ids": True}
    running, ends = [], [0]
    for chunk in client.chat.completions.create(**options):
        if ids := chunk.choices[0].model_extra.get("token_ids"):
            ends.append(ends[-1] + len(ids))
            running.append(server.metric("num_requests_running") if len(running) < 3 else None)
    assert running[0] == 1, "the first chunk came when the request was done"
    assert ends[-1] == LONG["max_tokens"]
    trace = server.trace(chunk.id)
    assert len(trace["unmasked"]) == LONG["max_tokens"]

    unmasked, prefixes = set(), {0}
    for step in trace["unmasked"]:
        unmasked.update(step)
        prefixes.add(next(p for p in range(LONG["max_tokens"] + 1) if p not in unmasked))
    assert set(ends) <= prefixes
    # a busy front end sends the tokens of several passes at once, but not those of half the answer
    assert len(ends) > len(prefixes) / 4 > 8


def test_logprobs_of_a_stream(client, server):
    options = {"model": server.model, "messages": MESSAGES, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**options)
    chunks = client.chat.completions.create(**options, stream=True)
    streamed = [item for c in chunks if c.choices[0].logprobs for item in c.choices[0].logprobs.content]
    assert [i.model_dump() for i in streamed] == [i.model_dump() for i in whole.choices[0].logprobs.content]


def test_n_streams_at_once(client, server):
    messages = [{"role": "user", "content": UNSURE}]
    options = {"model": server.model, "messages": messages, "n": 3, "seed": 11} | DRAWN
    texts = [""] * 3
    for chunk in client.chat.completions.create(**options, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    whole = client.chat.completions.create(**options)
    assert texts == [c.message.content for c in sorted(whole.choices, key=lambda c: c.index)]


@pytest.mark.parametrize("include", [False, True])
def test_stop_string_in_a_stream(client, server, include):
    """A stop string that comes in parts, of which nothing may get out before it is whole."""
    options = {"model": server.model, "messages": MESSAGES, "stop": " 15 19"}
    body = {"include_stop_str_in_output": include, "vllm_xargs": {"dllm_tokens_per_step": 1}}
    chunks = list(client.chat.completions.create(**options, stream=True, extra_body=body))
    assert "".join(contents(chunks)) == ("3 7 11 15 19" if include else "3 7 11")
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_async_client(server):
    async def ask():
        async with server.async_client() as client:
            whole = await client.chat.completions.create(model=server.model, messages=MESSAGES)
            stream = await client.chat.completions.create(model=server.model, messages=MESSAGES, stream=True)
            return whole.choices[0].message.content, contents([chunk async for chunk in stream])

    whole, parts = streamed(lambda: asyncio.run(ask()), lambda found: found[1])
    assert "".join(parts) == whole == ANSWER


# ---- the client goes away ----


def was_aborted(server, response_id: str, count: int = 1) -> None:
    server.wait_idle()
    for trace in server.traces(response_id, count):
        assert trace["finish_reason"] == "abort"
        assert 0 < len(trace["unmasked"]) < SLOW["max_tokens"]


@pytest.mark.parametrize("n", [1, 3])
def test_disconnect_in_mid_answer(client, server, n):
    options = SLOW | {"n": n, "temperature": 0.5}
    stream = client.chat.completions.create(model=server.model, messages=MESSAGES, stream=True, **options)
    first = next(chunk for chunk in stream if chunk.choices[0].delta.content)
    assert server.metric("num_requests_running") == n
    assert server.metric("kv_cache_usage_perc") > 0
    stream.close()
    was_aborted(server, first.id, count=n)


def test_disconnect_of_one_among_others(client, server):
    passes = {"max_tokens": 192, "extra_body": {"ignore_eos": True, "vllm_xargs": {"dllm_steps": 192}}}
    options = {"model": server.model, "prompt": text_prompt("echo abcdefgh"), "stream": True} | passes
    alone = "".join(c.choices[0].text for c in client.completions.create(**options))
    stays = client.completions.create(**options)
    goes = client.completions.create(model=server.model, prompt=text_prompt(QUESTION), stream=True, **SLOW)
    left = next(goes).id
    text = next(stays).choices[0].text
    goes.close()
    text += "".join(c.choices[0].text for c in stays)
    assert text == alone
    was_aborted(server, left)


def test_client_that_gives_up_waiting(server):
    """Without a stream: the connection closes before there is an answer."""
    request_id = "gives-up"
    body = {"messages": MESSAGES, "request_id": request_id, "max_tokens": 480, **SLOW["extra_body"]}
    with contextlib.suppress(httpx.ReadTimeout):
        response = server.post("/v1/chat/completions", body, timeout=httpx.Timeout(60, read=0.5))
        raise AssertionError(f"it was answered: {response.text}")
    was_aborted(server, request_id)


def test_cancelled_tasks(server):
    async def ask():
        async with server.async_client() as client:
            asks = [
                client.completions.create(
                    model=server.model,
                    prompt=text_prompt(f"echo {'abcd'[i] * 5}"),
                    max_tokens=SLOW["max_tokens"],
                    extra_body=SLOW["extra_body"] | {"request_id": f"cancelled-{i}"},
                )
                for i in range(4)
            ]
            tasks = [asyncio.create_task(a) for a in asks]
            while server.metric("num_requests_running") < 4:
                await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(r, asyncio.CancelledError) for r in asyncio.run(ask()))
    was_aborted(server, "cancelled-", count=4)
