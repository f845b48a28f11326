"""Chat and text completions of a real server, asked by the `openai` client."""

import math

import pytest
from served import ANSWER, DRAWN, GEN_LENGTH, MAX_MODEL_LEN, MESSAGES, QUESTION, UNSURE, text_prompt

UNSURE_MESSAGES = [{"role": "user", "content": UNSURE}]


@pytest.fixture
def chat(client, server):
    def ask(messages=MESSAGES, **options):
        return client.chat.completions.create(model=server.model, messages=messages, **options)

    return ask


@pytest.fixture
def complete(client, server):
    def ask(prompt=None, **options):
        return client.completions.create(model=server.model, prompt=prompt or text_prompt(QUESTION), **options)

    return ask


def test_chat(chat, server):
    answer = chat()
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(server.tokenize(text_prompt(QUESTION)))
    assert answer.usage.completion_tokens == len(ANSWER) + 1  # a token a character, and the EOS
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    trace = server.trace(answer.id)
    assert trace["prompt_len"] == answer.usage.prompt_tokens
    assert sum(map(len, trace["unmasked"])) < trace["gen_length"], "it did not wait for what comes after its EOS"


def test_completion(chat, complete):
    text, said = complete(), chat()
    assert text.choices[0].text == ANSWER
    assert text.choices[0].finish_reason == "stop"
    assert text.usage == said.usage


def test_several_prompts_in_one_call(complete, server):
    questions = [QUESTION, "sum 1 2 3", "echo diffusion", "calc 9+8"]
    alone = [complete(text_prompt(q), max_tokens=40) for q in questions]
    together = complete([text_prompt(q) for q in questions], max_tokens=40)
    assert [c.index for c in together.choices] == [0, 1, 2, 3]
    assert [c.text for c in together.choices] == [a.choices[0].text for a in alone]
    assert together.usage.completion_tokens == sum(a.usage.completion_tokens for a in alone)
    assert together.usage.prompt_tokens == sum(a.usage.prompt_tokens for a in alone)
    by_ids = complete([server.tokenize(text_prompt(q)) for q in questions], max_tokens=40)
    assert [c.text for c in by_ids.choices] == [c.text for c in together.choices]


def test_n_draws_n_answers(chat, server):
    first = chat(UNSURE_MESSAGES, n=3, seed=5, **DRAWN)
    texts = [c.message.content for c in sorted(first.choices, key=lambda c: c.index)]
    assert len(set(texts)) > 1
    again = chat(UNSURE_MESSAGES, n=3, seed=5, **DRAWN)
    assert [c.message.content for c in sorted(again.choices, key=lambda c: c.index)] == texts
    traces = server.traces(first.id, count=3)
    assert all(t["gen_length"] == DRAWN["max_tokens"] for t in traces)
    assert [c.index for c in sorted(first.choices, key=lambda c: c.index)] == [0, 1, 2]
    all_of_it = chat(n=3, extra_body={"ignore_eos": True}, **DRAWN)
    assert all_of_it.usage.completion_tokens == 3 * DRAWN["max_tokens"]


def test_seed(chat, complete):
    def text(**options):
        return chat(UNSURE_MESSAGES, **DRAWN, **options).choices[0].message.content

    assert text(seed=1) == text(seed=1) == complete(text_prompt(UNSURE), seed=1, **DRAWN).choices[0].text
    assert len({text(seed=i) for i in range(4)}) > 2
    assert len({text() for _ in range(4)}) > 2, "without a seed each answer is another draw"
    assert text(seed=-3) == text(seed=-3)


@pytest.mark.parametrize("top", [{"top_p": 1e-6}, {"extra_body": {"top_k": 1}}])
def test_top_p_and_top_k_can_leave_one_token(chat, top):
    greedy = chat(UNSURE_MESSAGES, **(DRAWN | {"temperature": 0}))
    assert chat(UNSURE_MESSAGES, seed=3, **DRAWN, **top).choices[0].message.content == greedy.choices[0].message.content


@pytest.mark.parametrize("include", [False, True])
def test_stop_string(chat, include):
    answer = chat(stop=[" 15", "never said"], extra_body={"include_stop_str_in_output": include})
    assert answer.choices[0].message.content == ("3 7 11 15" if include else "3 7 11")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].model_extra["stop_reason"] == " 15"


@pytest.mark.parametrize("include", [False, True])
def test_stop_token_ids(chat, server, include):
    (nine,) = server.tokenize("9")
    answer = chat(extra_body={"stop_token_ids": [nine], "include_stop_str_in_output": include})
    assert answer.choices[0].message.content == ("3 7 11 15 19" if include else "3 7 11 15 1")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].model_extra["stop_reason"] == nine
    assert answer.usage.completion_tokens == len("3 7 11 15 19")


def test_logprobs_of_chat(chat):
    answer = chat(logprobs=True, top_logprobs=3, max_tokens=40)
    items = answer.choices[0].logprobs.content
    assert len(items) == answer.usage.completion_tokens
    assert "".join(i.token for i in items[:-1]) == answer.choices[0].message.content == ANSWER
    for item in items:
        assert len(item.top_logprobs) == 3
        values = [t.logprob for t in item.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert item.top_logprobs[0].token == item.token, "greedy: the chosen token is the most likely one"
        assert item.top_logprobs[0].logprob == item.logprob
        assert sum(map(math.exp, values)) <= 1 + 1e-5
        assert item.logprob >= math.log(1 / 128), "the best of 128 tokens"


def test_logprobs_of_completions(chat, complete):
    answer = complete(logprobs=3, max_tokens=40)
    found = answer.choices[0].logprobs
    assert "".join(found.tokens[:-1]) == ANSWER
    assert found.text_offset[: len(ANSWER)] == list(range(len(ANSWER)))
    said = chat(logprobs=True, top_logprobs=3, max_tokens=40).choices[0].logprobs.content
    assert found.tokens == [item.token for item in said]
    assert found.token_logprobs == [item.logprob for item in said]
    assert found.top_logprobs == [{t.token: t.logprob for t in item.top_logprobs} for item in said]


def test_logprobs_change_nothing(chat):
    with_them = chat(UNSURE_MESSAGES, seed=9, logprobs=True, **DRAWN)
    without = chat(UNSURE_MESSAGES, seed=9, **DRAWN)
    assert with_them.choices[0].message.content == without.choices[0].message.content
    assert all(item.top_logprobs == [] for item in with_them.choices[0].logprobs.content)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens(chat, server, name):
    answer = chat(**{name: 8})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.choices[0].message.content == ANSWER[:8]
    assert server.trace(answer.id)["gen_length"] == 8


def test_more_than_the_default_length(chat, server):
    assert server.trace(chat(max_tokens=2 * GEN_LENGTH).id)["gen_length"] == 2 * GEN_LENGTH


def test_max_tokens_up_to_the_last(chat, complete, server):
    room = MAX_MODEL_LEN - len(server.tokenize(text_prompt(QUESTION)))
    assert server.trace(chat(max_tokens=room).id)["gen_length"] == room
    assert server.trace(complete(max_tokens=room).id)["gen_length"] == room


def test_ignore_eos(chat, server):
    answer = chat(max_tokens=40, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 40
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content.startswith(ANSWER)
    trace = server.trace(answer.id)
    assert sorted(sum(trace["unmasked"], [])) == list(range(40))


def test_without_max_tokens(chat, complete, server):
    assert server.trace(chat().id)["gen_length"] == GEN_LENGTH
    assert server.trace(complete().id)["gen_length"] == GEN_LENGTH
    batch = server.post("/v1/chat/completions/batch", {"messages": [MESSAGES, MESSAGES]}).json()
    assert [t["gen_length"] for t in server.traces(batch["id"], count=2)] == [GEN_LENGTH, GEN_LENGTH]


def test_without_max_tokens_and_with_little_room(chat, complete, server):
    (a,) = server.tokenize("a")
    answer = complete([[a] * 490, [a] * 10, [a] * (MAX_MODEL_LEN - 1)])
    assert [t["gen_length"] for t in server.traces(answer.id, count=3)] == [22, GEN_LENGTH, 1]
    answer = chat([{"role": "user", "content": "a" * 480}])
    trace = server.trace(answer.id)
    assert trace["gen_length"] == MAX_MODEL_LEN - answer.usage.prompt_tokens < GEN_LENGTH


def test_settings_of_a_request(chat, server):
    settings = {"dllm_block_length": 8, "dllm_steps": 8}
    answer = chat(max_tokens=32, extra_body={"vllm_xargs": settings, "ignore_eos": True})
    trace = server.trace(answer.id)
    assert [len(step) for step in trace["unmasked"]] == [4] * 8
    assert all(p // 8 == i // 2 for i, step in enumerate(trace["unmasked"]) for p in step)


def test_a_prompt_may_hold_the_mask_token(complete, chat, server):
    mask = 1
    ids = server.tokenize(text_prompt("echo abc"))
    ids[6:6] = [mask, mask]
    answer = complete([ids], max_tokens=16, extra_body={"return_token_ids": True})
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.choices[0].model_extra["prompt_token_ids"] == ids
    assert mask not in answer.choices[0].model_extra["token_ids"]
    trace = server.trace(answer.id)
    assert trace["prompt_len"] == len(ids)
    assert all(0 <= position < 16 for step in trace["unmasked"] for position in step)

    answer = chat([{"role": "user", "content": "echo <|mdm_mask|>abc"}], max_tokens=16)
    assert server.trace(answer.id)["prompt_len"] == len(server.tokenize(text_prompt("echo abc"))) + 1


def test_echo(complete):
    answer = complete(max_tokens=8, echo=True)
    assert answer.choices[0].text == text_prompt(QUESTION) + ANSWER[:8]
    nothing = complete(max_tokens=0, echo=True)
    assert nothing.choices[0].text == text_prompt(QUESTION)
