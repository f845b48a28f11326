"""A server of a model whose attention is causal by blocks: what its API refuses, tells, and shows."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from browsing import chromium
from common import MASK
from served import MESSAGES, Server, text_prompt
from server_process import start, stop, wait_until_healthy

import vllm_dllm

PROMPT = text_prompt("count 3 by 4 x6")
BLOCKS = {"dllm_block_length": 16, "dllm_record": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("sdar server"), "tiny-sdar", dllm_cache="block", dllm_watch="true")
    try:
        wait_until_healthy(server)
        yield server
    finally:
        stop(server)


@pytest.mark.parametrize(
    "path, body, param, words",
    [
        ("completions", {"suffix": " 19"}, "suffix", "suffix=' 19' is not allowed with a model whose attention is causal by blocks: it "
         "must be left out, because no position sees what stands behind its block"),
        ("completions", {"vllm_xargs": {"dllm_suffix": "a"}}, "dllm_suffix", "dllm_suffix='a' is not allowed with a model"),
        ("completions", {"vllm_xargs": {"dllm_horizon": 8}, "stream": True}, "dllm_horizon", "dllm_horizon=8 is not allowed with"),
        ("completions", {"vllm_xargs": {"dllm_cache": "dual"}}, "dllm_cache", "it must be one of none, block"),
        ("dllm/loglikelihood", {"estimator": "mc", "pairs": [["a", "b"]]}, "estimator", "it must be chain with a model whose"),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
def test_what_it_cannot_see_is_refused(server, path, body, param, words):
    more = {"prompt": PROMPT, "max_tokens": 16} if path == "completions" else {}
    answer = server.post(f"/v1/{path}", more | body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert words in error["message"] and error["param"] == param


def test_an_empty_suffix_asks_for_nothing(server):
    assert server.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 8, "suffix": ""}).status_code == 200


def test_the_last_chunk_of_a_stream_has_the_record(server):
    """Overflow and all; the trace's `output_ids` are the response alone."""
    with server.client() as client:
        stream = client.completions.create(
            model=server.model,
            prompt=PROMPT,
            max_tokens=21,
            stream=True,
            extra_body={"ignore_eos": True, "vllm_xargs": BLOCKS},
        )
        chunks = list(stream)
    records = [record for chunk in chunks for c in chunk.choices if (record := getattr(c, "dllm_record", None))]
    (record,) = records
    trace = server.trace(chunks[0].id)
    length = -(-(trace["prompt_len"] + 21) // 16) * 16 - trace["prompt_len"]
    assert len(record["output_ids"]) == length > 21 == record["gen_length"] == len(trace["output_ids"])
    assert record["output_ids"][:21] == trace["output_ids"] and MASK not in record["output_ids"]
    assert list(vllm_dllm.replay(record))[-1] == record["prompt_ids"] + record["output_ids"]


def test_echo_has_the_chain_of_the_prompt(server):
    """As lm-evaluation-harness's `local-completions` asks for it: the same numbers as by the route."""
    ids = server.tokenize(PROMPT + "3 7 11")
    answer = server.post("/v1/completions", {"prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 1}).json()
    pair = server.post("/v1/dllm/loglikelihood", {"pairs": [[ids[:1], ids[1:]]]}).json()
    echoed = answer["choices"][0]["logprobs"]["token_logprobs"]
    assert echoed[0] is None and len(echoed) == len(ids) + 1
    assert echoed[1:-1] == pytest.approx(pair["data"][0]["token_logprobs"], abs=1e-4)


def test_the_page_offers_what_the_model_can_have(server):
    """And by itself what a request gets that says nothing."""
    found = httpx.get(server.url + "/v1/dllm/watch/settings", timeout=30).json()
    assert [policy["name"] for policy in found["policies"]] == ["none", "block"]
    assert (found["cache"], found["rule"], found["value"]) == ("block", "denoising_steps", None)
    assert "steps" not in [rule["name"] for rule in found["rules"]]
    general = {option["name"]: option["default"] for option in found["general"]}
    assert general == {"block_length": 4, "gen_length": 96}
    for policy in found["policies"]:
        for rule in found["rules"]:
            value = rule["default"] or {"float": 0.5, "int": 2}[rule["type"]]
            xargs = {"dllm_cache": policy["name"], rule["key"]: value, "dllm_block_length": 4}
            body = {"messages": MESSAGES, "max_tokens": 4, "vllm_xargs": xargs}
            assert server.post("/v1/chat/completions", body).status_code == 200, xargs


def test_a_canvas_is_told_from_its_start_to_its_overflow(server):
    """Blocks from position 0, what is behind the response, passes that unmask nothing; added up, the answer."""
    with httpx.stream("GET", f"{server.url}/v1/dllm/watch?first=true", timeout=60) as stream:
        lines = map(json.loads, stream.iter_lines())
        assert next(lines) == {"ready": True}
        body = {"prompt": PROMPT, "max_tokens": 21, "ignore_eos": True, "vllm_xargs": {"dllm_block_length": 16}}
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(server.post, "/v1/completions", body)
            events = []
            for event in lines:
                if "id" in event:
                    events.append(event)
                if "ended" in event:
                    break
            answer = asked.result().json()
    whole, *passes, ended = events
    start, end = whole["prompt_len"], whole["response_end"]
    assert end == start + 21 < whole["decoded_end"] == len(whole["tokens"]) and whole["decoded_end"] % 16 == 0
    assert whole["cache"] == "block" and whole["rule"] == "denoising_steps"
    assert all(event["block"][0] % 16 == 0 for event in passes)
    commits = [event for event in passes if not event["unmasked"]]
    # the prompt's whole blocks, and each block when it is finished
    assert len(commits) == whole["decoded_end"] // 16 - start // 16 + (start >= 16)
    tokens = whole["tokens"]
    for event in passes:
        for position, token in zip(event["unmasked"], event["put"], strict=True):
            tokens[position] = token
    trace = server.trace(answer["id"])
    assert tokens[start:end] == trace["output_ids"] and MASK not in tokens
    assert ended["ended"] == "length"


def test_the_page_shows_it(server):
    """Cells behind the response, the model's own settings in the form, and a replay from the trace file."""
    with chromium() as browser:
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url + "/dllm")
        page.wait_for_function("document.querySelector('#state').textContent == 'watching'")
        page.fill("#prompt", "count 3 by 4 x6")
        page.evaluate("document.querySelector('#one input[name=dllm_block_length]').value = 13")
        page.click("text=Run")
        page.wait_for_selector("article.ended", timeout=60_000)
        assert page.locator("article .cell.overflow").count() == -(18 + 96) % 13
        assert page.locator("#one input[name=dllm_horizon]").count() == 0
        assert page.locator("article h3").inner_text().startswith("block, denoising_steps")
        name = page.locator("article .id").inner_text()
        server.wait(lambda: name[: -len("-01234567")] in server.trace_file.read_text(), "the trace line")
        page.goto(f"{server.url}/dllm?trace={name[: -len('-01234567')]}")
        page.wait_for_selector("article.ended")
        assert page.locator("article .cell:not(.prompt)").count() == 96
        assert not errors
