"""What is refused: HTTP 400 with the setting, its value and what is allowed; nobody else notices."""

import asyncio
import threading
from collections.abc import Iterator

import openai
import pytest
from served import ANSWER, LONG, MAX_MODEL_LEN, MESSAGES, QUESTION, text_prompt

NAN, INF = float("nan"), float("inf")


class Bystander(threading.Thread):
    """Someone else's long stream, again and again while requests are refused."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.texts: list[str] = []
        self.in_flight, self.enough = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def run(self):
        try:
            with self.server.client() as client:
                while not self.enough.is_set() or len(self.texts) < 2:
                    self.texts.append(self.stream(client))
        except Exception as e:
            self.error = e

    def stream(self, client) -> str:
        options = {"prompt": text_prompt(QUESTION), "seed": 1, "temperature": 0.7, "stream": True} | LONG
        chunks = client.completions.create(model=self.server.model, **options)
        text = ""
        for chunk in chunks:
            text += chunk.choices[0].text
            self.in_flight.set()
        self.in_flight.clear()
        return text


@pytest.fixture(scope="module")
def bystander(server) -> Iterator[Bystander]:
    thread = Bystander(server)
    thread.start()
    yield thread
    thread.enough.set()
    thread.join(120)
    assert thread.error is None, thread.error
    assert len(thread.texts) >= 2
    assert len(set(thread.texts)) == 1, "a stream came out differently while others were refused"
    server.wait_idle()


@pytest.fixture
def refused(server, client, bystander):
    """Ask for `options` at an API, with and without a stream, and check that both are refused with `words`, and with
    `param`, which is what the message begins with if nothing is said."""

    def check(create, words, options, param=None):
        assert bystander.in_flight.wait(60), bystander.error
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as refusal:
                create(stream=stream, **options)
            assert refusal.value.status_code == 400
            for word in words:
                assert word in refusal.value.message, refusal.value.message
            said = refusal.value.body["message"]
            begins = refusal.value.param and said.startswith(refusal.value.param)
            assert begins if param is None else refusal.value.param == param, refusal.value.body
        assert (
            client.chat.completions.create(model=server.model, messages=MESSAGES).choices[0].message.content == ANSWER
        )

    return check


def xargs(**settings):
    return {"extra_body": {"vllm_xargs": settings}}


def extra(**fields):
    return {"extra_body": fields}


# what is asked -> what the message must say: the setting, its value, what is allowed
SETTINGS = [
    (xargs(dllm_foo=1), ["dllm_foo=1", "is not a setting", "dllm_cache", "dllm_threshold"]),
    (xargs(dllm_cache="fast"), ["dllm_cache='fast'", "one of none"]),
    (xargs(dllm_cache=3), ["dllm_cache=3", "one of none"]),
    (xargs(dllm_threshold=2), ["dllm_threshold=2", "from 0 to 1"]),
    (xargs(dllm_threshold=-0.5), ["dllm_threshold=-0.5", "from 0 to 1"]),
    (xargs(dllm_threshold="0.9"), ["dllm_threshold='0.9'", "a number"]),
    (xargs(dllm_threshold=[0.9]), ["dllm_threshold=[0.9]", "a number"]),
    (xargs(dllm_steps=8.5), ["dllm_steps=8.5", "a whole number of at least 1"]),
    (xargs(dllm_steps=0), ["dllm_steps=0", "a whole number of at least 1"]),
    (xargs(dllm_steps="8"), ["dllm_steps='8'", "a whole number"]),
    (xargs(dllm_steps=31), ["dllm_steps=31", "a multiple of the number of blocks (2,"]),
    (xargs(dllm_steps=128), ["dllm_steps=128", "at most 64"]),
    (xargs(dllm_tokens_per_step=0), ["dllm_tokens_per_step=0", "at least 1"]),
    (xargs(dllm_factor=-1), ["dllm_factor=-1", "must be"]),
    (xargs(dllm_entropy_bound=-0.1), ["dllm_entropy_bound=-0.1", "must be"]),
    (xargs(dllm_block_length=0), ["dllm_block_length=0", "a whole number of at least 1"]),
    (xargs(dllm_block_length=-4), ["dllm_block_length=-4", "at least 1"]),
    (xargs(dllm_score="best"), ["dllm_score='best'", "one of confidence"]),
    (xargs(dllm_score="origin"), ["dllm_score='origin'", "one of"]),
    (xargs(dllm_certainty_sigma=0), ["dllm_certainty_sigma=0", "a number"]),
    (xargs(dllm_alg_temp=0.5), ["dllm_alg_temp=0.5", "is not read by", "dllm_threshold"]),
    (xargs(dllm_scores=[1.0, 2.0]), ["dllm_scores=[1.0, 2.0]", "is not read by"]),
    (
        xargs(dllm_scores=[1.0, 2.0], dllm_score="random", dllm_tokens_per_step=1),
        ["dllm_scores with 2 numbers", "64 response tokens"],
    ),
    (xargs(dllm_steps=8, dllm_threshold=0.5), ["dllm_steps=8", "dllm_threshold=0.5", "contradict", "at most one of"]),
    (xargs(dllm_gen_length=64), ["dllm_gen_length=64", "the server's setting"]),
    (xargs(dllm_trace="/tmp/trace"), ["dllm_trace=", "the server's setting"]),
]

PARAMETERS = [
    (extra(repetition_penalty=1e-40), ["repetition_penalty=1e-40", "from 1e-30 to 1e+30"]),
    (extra(logit_bias={"128": 1.0}), ["logit_bias with token 128", "from 0 to 127"]),
    (extra(allowed_token_ids=[5, -1]), ["allowed_token_ids with token -1", "from 0 to 127"]),
    (extra(allowed_token_ids=[]), ["allowed_token_ids=[]", "at least one token"]),
    (extra(allowed_token_ids=[1]), ["allowed_token_ids bar every token at position 0", "besides the mask token"]),
    (extra(allowed_token_ids=[0], min_tokens=4), ["allowed_token_ids and min_tokens bar every token"]),
    (extra(allowed_token_ids=[31], bad_words=["7"]), ["allowed_token_ids and bad_words bar every token"]),
    (extra(structured_outputs={"regex": "(?=a)a"}), ["regex='(?=a)a'", "without anchors, look-around"]),
    (extra(structured_outputs={"regex": "[0-9]{65}"}), ["max_tokens=64", "must be at least 65"]),
    (
        extra(structured_outputs={"grammar": 'root ::= "a"'}),
        ["structured_outputs.grammar='root", "must be regex, choice"],
    ),
    (extra(best_of=2), ["best_of=2", "must be 1"]),
    (extra(guided_choice=["a"]), ["guided_choice=['a']", "structured_outputs has taken its place"]),
    (extra(logits_processors=["a.b"]), ["logits_processors=['a.b']", "must be None"]),
    (extra(priority=3), ["priority=3", "must be 0", "--scheduling-policy"]),
    (extra(watermarking=True), ["watermarking=True", "must be None"]),
    (extra(dllm_cache="none"), ["dllm_cache='none'", "must be in vllm_xargs"]),
]


def chat(server, client):
    def create(**options):
        return client.chat.completions.create(
            **({"model": server.model, "messages": MESSAGES, "max_tokens": 64} | options)
        )

    return create


def complete(server, client):
    def create(**options):
        options = {"prompt": text_prompt(QUESTION), "max_tokens": 64} | options
        return client.completions.create(model=server.model, **options)

    return create


@pytest.mark.parametrize("api", [chat, complete])
@pytest.mark.parametrize("options, words", SETTINGS + PARAMETERS, ids=lambda v: str(v)[:60])
def test_refused(refused, server, client, api, options, words):
    refused(api(server, client), words, options)


def test_too_long(refused, server, client):
    room = MAX_MODEL_LEN - len(server.tokenize(text_prompt(QUESTION)))
    words = [
        f"max_tokens={room + 1}",
        f"{MAX_MODEL_LEN - room} tokens",
        f"{MAX_MODEL_LEN + 1}",
        f"at most {MAX_MODEL_LEN}",
    ]
    refused(chat(server, client), words, {"max_tokens": room + 1})
    refused(complete(server, client), words, {"max_tokens": room + 1})
    refused(chat(server, client), ["max_completion_tokens=600", str(MAX_MODEL_LEN)], {"max_completion_tokens": 600})
    refused(complete(server, client), ["max_tokens=600", str(MAX_MODEL_LEN)], {"max_tokens": 600})
    # a prompt that does not fit itself
    (a,) = server.tokenize("a")
    too_long = {"prompt": [[a] * (MAX_MODEL_LEN + 1)], "max_tokens": None}
    refused(complete(server, client), [str(MAX_MODEL_LEN)], too_long, "input_tokens")
    # one among several prompts: none of them is begun
    refused(complete(server, client), ["max_tokens=64"], {"prompt": [[a] * 10, [a] * 500]})


def test_prompts_that_leave_no_room(refused, server, client):
    """Whether a length is asked for or not, the prompt is what is too long, or the length."""
    (a,) = server.tokenize("a")
    full = {"prompt": [a] * MAX_MODEL_LEN}
    words = [f"a prompt of {MAX_MODEL_LEN} tokens", f"at most {MAX_MODEL_LEN - 1}"]
    for prompt in (full, {"prompt": "a" * MAX_MODEL_LEN}, {"prompt": [[a] * 10, [a] * MAX_MODEL_LEN]}):
        refused(complete(server, client), words, prompt | {"max_tokens": None}, "prompt")
    refused(complete(server, client), ["max_tokens=1 ", str(MAX_MODEL_LEN + 1)], full | {"max_tokens": 1})
    template = len(server.tokenize(text_prompt("")))
    messages = {"messages": [{"role": "user", "content": "a" * (MAX_MODEL_LEN - template)}]}
    refused(chat(server, client), words, messages | {"max_tokens": None}, "prompt")


@pytest.mark.parametrize("token", [128, 10**9, 2**31, 2**63, 2**64], ids=str)
def test_tokens_out_of_range(refused, server, client, token):
    words = [f"prompt[1]={token} is not allowed", "from 0 to 127"]
    for prompt in ([5, token], [[5, 6, 7], [5, token]]):
        refused(complete(server, client), words, {"prompt": prompt}, "prompt")


def test_no_tokens(refused, server, client):
    refused(complete(server, client), ["prompt=[]", "at least one token"], {"prompt": [[]]})


@pytest.mark.parametrize("value", [0, -1])
def test_no_length(refused, server, client, value):
    for field in ("max_tokens", "max_completion_tokens"):
        refused(chat(server, client), [f"{field}={value} is not allowed: it must be at least 1"], {field: value})
    refused(complete(server, client), [f"max_tokens={value} is not allowed"], {"max_tokens": value})


def test_a_length_is_called_what_the_client_calls_it(refused, server, client):
    words = ["max_completion_tokens=500 is not allowed", f"at most {MAX_MODEL_LEN}"]
    refused(chat(server, client), words, {"max_tokens": None, "max_completion_tokens": 500})


def test_beam_search(refused, server, client):
    options = {"n": 2, "extra_body": {"use_beam_search": True}}
    refused(chat(server, client), ["use_beam_search=True", "must be False"], options)
    with pytest.raises(openai.BadRequestError, match="use_beam_search=True is not allowed: it must be False"):
        complete(server, client)(**options)


def test_prompt_logprobs(server, client, bystander):
    assert bystander.in_flight.wait(60)
    for options in (extra(prompt_logprobs=1), {"echo": True, "logprobs": 1}):
        with pytest.raises(openai.BadRequestError, match="prompt_logprobs=1 is not allowed with 1, the mask token"):
            client.completions.create(model=server.model, prompt="a<|mdm_mask|>b", max_tokens=1, **options)
    with pytest.raises(openai.BadRequestError, match=r"logprob_token_ids=\[4, 5\] is not allowed"):
        chat(server, client)(logprobs=True, **extra(logprob_token_ids=[4, 5]))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body, words",
    [
        ({"vllm_xargs": {"dllm_threshold": NAN}}, ["dllm_threshold=nan", "from 0 to 1"]),
        ({"vllm_xargs": {"dllm_threshold": INF}}, ["dllm_threshold=inf", "from 0 to 1"]),
        ({"vllm_xargs": {"dllm_steps": NAN}}, ["dllm_steps=nan", "a whole number"]),
        ({"vllm_xargs": {"dllm_factor": -INF}}, ["dllm_factor=-inf", "a number"]),
        (
            {"vllm_xargs": {"dllm_scores": [0.5, NAN], "dllm_score": "random", "dllm_tokens_per_step": 1}},
            ["dllm_scores=[0.5, nan]", "a list of numbers"],
        ),
        ({"temperature": NAN}, ["temperature", "nan"]),
        ({"top_p": NAN}, ["top_p", "nan"]),
        ({"presence_penalty": NAN}, ["presence_penalty", "nan"]),
        ({"vllm_xargs": {"dllm_steps": None}}, ["dllm_steps"]),
        ({"vllm_xargs": {"dllm_steps": {"a": 1}}}, ["dllm_steps"]),
        ({"vllm_xargs": "dllm_steps"}, ["vllm_xargs"]),
        ({"max_tokens": "many"}, ["max_tokens", "many"]),
        ({"max_tokens": 8.5}, ["max_tokens", "8.5"]),
    ],
    ids=lambda v: str(v)[:60],
)
def test_what_no_client_should_send(server, bystander, body, words, stream):
    assert bystander.in_flight.wait(60)
    for path, what in (
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": text_prompt(QUESTION)}),
    ):
        response = server.post(path, what | {"stream": stream} | body)
        assert response.status_code == 400, response.text
        for word in words:
            assert word in response.json()["error"]["message"]
    assert server.post("/v1/chat/completions", {"messages": MESSAGES}).status_code == 200


def test_refused_among_64(server, bystander):
    """Half of 64 requests at once are refused; the other half get what they ask for."""

    async def run():
        async with server.async_client() as client:
            bad = [options for options, _ in SETTINGS + PARAMETERS]
            asks = []
            for i in range(64):
                options = bad[i // 2 % len(bad)] if i % 2 else {"seed": i}
                asks.append(
                    client.completions.create(
                        model=server.model, prompt=text_prompt(QUESTION), **({"max_tokens": 64} | options)
                    )
                )
            return await asyncio.gather(*asks, return_exceptions=True)

    answers = asyncio.run(run())
    assert all(isinstance(a, openai.BadRequestError) for a in answers[1::2])
    assert [a.choices[0].text for a in answers[::2]] == [ANSWER] * 32
