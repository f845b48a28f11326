"""Given text and horizons over HTTP: an editor's fill-in-the-middle, forms with holes, long answers."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from golden_cases import sample
from served import ANSWER, MAX_MODEL_LEN, MESSAGES, QUESTION, text_prompt

PROMPT = text_prompt(QUESTION)
GAP = {"prompt": PROMPT + "3 7", "suffix": " 19 23", "max_tokens": 6}  # as code editors send it
FORM = ["3 7 ", 5, " 19 23", 20]
FILLED = "3 7 11 15 19 23 27"


@pytest.mark.parametrize("stop", [None, ["15", "\n\n"]])
def test_fill_in_the_middle(client, server, stop):
    options = {"model": server.model, **GAP, "temperature": 0.0, "stop": stop}
    answer = client.completions.create(**options)
    assert answer.choices[0].text == (" 11 15" if stop is None else " 11 ")
    assert answer.choices[0].finish_reason == ("length" if stop is None else "stop")
    assert answer.usage.prompt_tokens == len(server.tokenize(GAP["prompt"])) and answer.usage.completion_tokens == 6
    chunks = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == answer.choices[0].text
    assert chunks[-1].usage == answer.usage


def test_a_suffix_for_every_prompt_and_answer(client, server):
    options = {"model": server.model, **GAP, "temperature": 2.0, "seed": 1, "n": 2}
    answer = client.completions.create(**options | {"prompt": [GAP["prompt"], PROMPT + "3"], "max_tokens": 8})
    assert len(answer.choices) == 4 and answer.usage.completion_tokens == 4 * 8
    ids = {"prompt": server.tokenize(GAP["prompt"]), "suffix": None}
    same = {"extra_body": {"vllm_xargs": {"dllm_suffix": server.tokenize(GAP["suffix"])}}}
    by_ids = client.completions.create(**options | ids, **same)
    assert [c.text for c in by_ids.choices] == [c.text for c in client.completions.create(**options).choices]


def test_an_echo_has_the_prompt_and_no_suffix(client, server):
    assert client.completions.create(model=server.model, **GAP, echo=True).choices[0].text == GAP["prompt"] + " 11 15"


def test_an_empty_suffix_is_none(client, server):
    answer = client.completions.create(model=server.model, prompt=PROMPT, suffix="", max_tokens=64)
    assert answer.choices[0].text == ANSWER


@pytest.mark.parametrize("template", [FORM, '["3 7 ", 5, [8, 25, 33, 8, 26, 27], 20]'], ids=["list", "JSON"])
def test_a_form_with_holes_is_the_assistants_turn(client, server, template):
    options = {"model": server.model, "messages": MESSAGES, "extra_body": {"vllm_xargs": {"dllm_template": template}}}
    answer = client.chat.completions.create(**options, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == FILLED and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == len(FILLED) + 1
    rows = answer.choices[0].logprobs.content
    assert [r.token for r in rows[:4]] == list("3 7 ") and [r.logprob for r in rows[:4]] == [0.0] * 4
    chunks = list(client.chat.completions.create(**options, stream=True))
    texts = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
    assert "".join(texts) == FILLED and texts[0].startswith("3 7 "), "given text comes with what is final"
    assert server.trace(answer.id)["gen_length"] == 35


def test_a_template_in_the_responses_api(client, server):
    body = {"vllm_xargs": {"dllm_template": FORM}}
    answer = client.responses.create(model=server.model, input=QUESTION, extra_body=body)
    assert answer.output_text == FILLED


def test_a_long_answer_with_a_horizon(client, server):
    """Positions that never came to exist are counted."""
    before = server.metric("vllm_dllm:absent_tokens_total")
    options = {"model": server.model, "messages": MESSAGES, "max_tokens": 480}
    answer = client.chat.completions.create(**options, extra_body={"vllm_xargs": {"dllm_horizon": 16}})
    assert answer.choices[0].message.content == ANSWER
    trace = server.trace(answer.id)
    canvas = trace["prompt_len"] + 480
    assert max(trace["query_tokens"]) == trace["prompt_len"] + 32 + 16
    server.wait_idle()
    saved = server.metric("vllm_dllm:absent_tokens_total") - before
    assert saved == sum(canvas - computed for computed in trace["query_tokens"])


def test_golden_canvases(server, sampling):
    """Cases of given text and of horizons, eight requests at once."""
    batch = [case for case in sample("tiny-llada", sampling, 1 / 6) if case.case["source"] in ("infill", "horizon")]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda case: case.ask(server), batch))
    sampling.check([case.difference(*answer) for case, answer in zip(batch, answers, strict=True)])


CHAT = ("/v1/chat/completions", {"messages": MESSAGES})
TEXT = ("/v1/completions", {"prompt": PROMPT})
ROOM = f"it must be at most {MAX_MODEL_LEN} (max_model_len)"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "where, fields, xargs, param, words",
    [
        (CHAT, {}, {"dllm_template": ["a"]}, "dllm_template", "it must have a masked position"),
        (CHAT, {}, {"dllm_template": "a"}, "dllm_template", "it must be a list"),
        (CHAT, {}, {"dllm_template": [600]}, "dllm_template", ROOM),
        (CHAT, {}, {"dllm_template": "[[1], 5]"}, "dllm_template", "with token 1 is not allowed"),
        (
            CHAT,
            {"max_tokens": 16},
            {"dllm_template": [20]},
            "max_tokens",
            "with dllm_template: it must be left out or 20",
        ),
        (CHAT, {"max_completion_tokens": 9}, {"dllm_template": [20]}, "max_completion_tokens", "left out or 20"),
        (TEXT, {"max_tokens": 9}, {"dllm_template": [20]}, "max_tokens", "left out or 20"),
        (TEXT, {"suffix": "x" * 400, "max_tokens": 200}, {}, "max_tokens", "and the suffix's 400 the canvas has"),
        (TEXT, {"suffix": "x" * 500}, {}, "dllm_suffix", "dllm_suffix of 500 tokens is not allowed"),
        (TEXT, {"suffix": "<|mdm_mask|>"}, {}, "dllm_suffix", "with token 1 is not allowed"),
        (TEXT, {}, {"dllm_suffix": 1.5}, "dllm_suffix", "a string or a list of token ids"),
        (TEXT, {}, {"dllm_horizon": -1}, "dllm_horizon", "a whole number of at least 0"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_refused(server, where, fields, xargs, param, words, stream):
    path, body = where
    response = server.post(path, body | fields | {"vllm_xargs": xargs, "stream": stream})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param and words in error["message"]
