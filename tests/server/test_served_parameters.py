"""Sampling parameters over HTTP, asked by the `openai` client."""

import openai
import pytest
from served import ANSWER, MESSAGES, QUESTION, text_prompt

ONE, SEVEN = 25, 31


@pytest.fixture
def say(client, server):
    def ask(**options) -> str:
        reply = client.chat.completions.create(model=server.model, messages=MESSAGES, **options)
        return reply.choices[0].message.content

    return ask


def test_each_has_its_effect(say):
    assert say() == ANSWER
    assert "1" not in say(logit_bias={str(ONE): -100})
    for words in (["15"], ["15", "19"], ["1"]):
        answer = say(extra_body={"bad_words": words})
        assert answer and not any(word in answer for word in words)
    assert set(say(extra_body={"allowed_token_ids": [ONE, SEVEN, 0]})) <= set("17")
    assert len(say(extra_body={"min_tokens": 30})) >= 30
    assert say(presence_penalty=2.0, frequency_penalty=2.0) != ANSWER
    assert say(extra_body={"repetition_penalty": 3.0}) != ANSWER
    assert say(temperature=2.0, seed=1, extra_body={"min_p": 1.0}) == ANSWER


def test_they_go_with_streams_and_with_each_other(client, server):
    options = {"bad_words": ["15"], "repetition_penalty": 1.2, "min_tokens": 20, "vllm_xargs": {"dllm_cache": "dual"}}
    whole = client.completions.create(
        model=server.model, prompt=text_prompt(QUESTION), extra_body=options, max_tokens=64
    )
    chunks = client.completions.create(
        model=server.model, prompt=text_prompt(QUESTION), extra_body=options, max_tokens=64, stream=True
    )
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == whole.choices[0].text and "15" not in text and len(text) >= 20


def test_the_responses_api(client, server):
    reply = client.responses.create(model=server.model, input=QUESTION, extra_body={"logit_bias": {str(ONE): -100.0}})
    assert reply.output_text and "1" not in reply.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_end_is_told_to_its_client_alone(client, server, say, stream):
    options = {"allowed_token_ids": [ONE], "bad_words": ["11"], "vllm_xargs": {"dllm_tokens_per_step": 1}}
    with pytest.raises(openai.APIError, match="allowed_token_ids and bad_words bar every token at position"):
        reply = client.chat.completions.create(
            model=server.model, messages=MESSAGES, stream=stream, max_tokens=8, extra_body=options
        )
        assert stream
        list(reply)
    assert say() == ANSWER
    server.wait_idle()


def test_guidance_and_end_tokens(say, client, server):
    def settings(**own):
        return {"extra_body": {"vllm_xargs": own}}

    guided = say(**settings(dllm_cfg_scale=1.0, dllm_cache="dual"))
    assert guided.startswith("3 7 11 15 19 23") and guided != ANSWER
    assert len(say(max_tokens=40, **settings(dllm_suppress_eos=True))) >= 40
    assert len(say(**settings(dllm_defer_eos=True))) > len(ANSWER)
    for own, words in (
        ({"dllm_cfg_scale": -1}, "from 0 to 1000"),
        ({"dllm_cfg_scale": "much"}, "a number"),
        ({"dllm_suppress_eos": 2}, "true or false"),
        ({"dllm_defer_eos": True, "dllm_cache": "dkv-greedy", "dllm_score": "random"}, "is not"),
    ):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match=words):
                say(stream=stream, **settings(**own))
    server.wait_idle()
