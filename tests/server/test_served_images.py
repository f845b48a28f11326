"""LLaDA-V behind `vllm serve`: images as OpenAI clients send them, and images that no answer can be given to."""

import base64
import io
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from common import GOLDEN
from golden_cases import Case, cases
from openai import BadRequestError
from PIL import Image
from served import Server, streamed
from server_process import start, stop, wait_until_healthy

IMAGES = 3  # at most in a request
ANSWERED = [case for case in cases("tiny-llada-v") if case.case["stopped"]]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    limits = {"limit_mm_per_prompt": f'{{"image": {IMAGES}}}', "allowed_media_domains": "example.com"}
    server = start(tmp_path_factory.mktemp("images"), "tiny-llada-v", **limits)
    try:
        wait_until_healthy(server)
        yield server
    finally:
        stop(server)


def url(data: bytes, kind: str = "image/png") -> dict:
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def drawn(width: int, height: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, kind)
    return buffer.getvalue()


def messages(case: dict) -> list[dict]:
    """A golden case's chat, its images in the first user's message. The system text is the server's to supply."""
    files = [url((GOLDEN / "images" / name).read_bytes()) for name in case["images"]]
    chat = []
    for i, turn in enumerate(case["turns"]):
        content = [*files, {"type": "text", "text": turn}] if i == 0 else turn
        chat.append({"role": "assistant" if i % 2 else "user", "content": content})
    return chat


def asked(case: Case) -> dict:
    own = {"vllm_xargs": case.xargs | {"dllm_drop_behind_end": True}}
    return {"messages": messages(case.case), "max_tokens": case.max_tokens, "temperature": 0, "extra_body": own}


def text_of(case: Case) -> str:
    return case.case["text"].split("<|eot_id|>")[0]


def test_chats_with_images_are_answered_as_by_the_authors_code(server, sampling):
    """A sample of the golden answers that end, at once and over HTTP."""
    batch = sampling.take(ANSWERED, lambda case: len(case.case["images"]), least=2)
    with server.client() as client, ThreadPoolExecutor(len(batch)) as pool:
        answers = list(pool.map(lambda c: client.chat.completions.create(model=server.model, **asked(c)), batch))
    for case, answer in zip(batch, answers, strict=True):
        assert answer.choices[0].message.content == text_of(case)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.prompt_tokens == case.case["prompt_length"]


def test_a_stream_is_the_answer_in_parts(server):
    case = next(case for case in ANSWERED if len(case.case["images"]) == 2)
    with server.client() as client:

        def parts() -> list[str]:
            stream = client.chat.completions.create(model=server.model, stream=True, **asked(case))
            contents = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
            return [content for content in contents if content]

        assert "".join(streamed(parts, list)) == text_of(case)


def test_an_image_stands_where_the_client_has_it(server):
    """Before the text and behind it, and in other formats. Of each piece behind an image one token is dropped: a newline,
    or the end of the turn."""
    picture, text = url(drawn(60, 40)), {"type": "text", "text": "Which colours?"}
    jpeg = url(drawn(60, 40, "JPEG"), "image/jpeg")
    with server.client() as client:
        lengths = {
            client.chat.completions.create(
                model=server.model, messages=[{"role": "user", "content": content}], max_tokens=8
            ).usage.prompt_tokens
            for content in ([picture, text], [jpeg, text])
        }
        behind = [{"role": "user", "content": [text, picture]}]
        behind = client.chat.completions.create(model=server.model, messages=behind, max_tokens=8).usage
    assert len(lengths) == 1
    assert behind.prompt_tokens == lengths.pop()


ONE = drawn(60, 40)
BAD = {
    "broken": ([url(ONE[: len(ONE) // 2])], "image"),
    "no image": ([url(b"hello, I am text")], "image"),
    "no base64": ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}], ""),
    "one pixel": ([url(drawn(1, 1))], "an image of 1 x 1 pixels is not allowed"),
    "20,000 wide": ([url(drawn(20000, 8))], "an image of 20000 x 8 pixels is not allowed"),
    "a hundred": ([url(ONE)] * 100, f"At most {IMAGES} image"),
    "more than allowed": ([url(ONE)] * (IMAGES + 1), f"At most {IMAGES} image"),
    "a video": ([{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}], "video"),
    "another domain": ([{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}], "example.com"),
    "a file": ([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}], "it must be an http or https URL"),
    "no base64 at all": ([{"type": "image_url", "image_url": {"url": "data:text/plain,hi"}}], "a data URL in base64"),
    "places": ([url(ONE), {"type": "text", "text": "<image> and <image>"}], "must say it once for each image"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_shown_is_refused_in_a_sentence(server, name, stream):
    parts, said = BAD[name]
    content = [*parts, {"type": "text", "text": "Which colours?"}]
    with server.client() as client, pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": content}], stream=stream, max_tokens=8
        )
    message = refused.value.body["message"]
    assert said in message
    assert "Traceback" not in message and len(message) < 400


def test_refusals_disturb_nobody(server):
    """Bad requests beside good ones: these are answered as ever, and nothing is left behind."""
    cases = random.Random(0).sample(ANSWERED, 4)
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        good = [pool.submit(client.chat.completions.create, model=server.model, **asked(case)) for case in cases]
        chats = [[{"role": "user", "content": BAD[name][0]}] for name in ("broken", "one pixel", "a hundred")]
        bad = [pool.submit(client.chat.completions.create, model=server.model, messages=chat) for chat in chats]
        assert all(isinstance(request.exception(), BadRequestError) for request in bad)
        assert [r.result().choices[0].message.content for r in good] == [text_of(case) for case in cases]
    server.wait_idle()
