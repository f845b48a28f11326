"""The live page: in a real browser, and what it is made of."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from served import ANSWER, MESSAGES, QUESTION
from vllm.entrypoints.serve.middleware.authenticate import GUARDED_PREFIX

from vllm_dllm.endpoints.watch import router

HOSTILE = "<img src=x onerror=alert(1)> \u202egnp \u0007 & <b>bold</b>"


@pytest.fixture
def page(browser, server):
    """The page, watching; a test that makes an error in it fails."""
    context = browser.new_context()
    context.set_default_timeout(60_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url + "/dllm")
    page.wait_for_function("document.querySelector('#state').textContent == 'watching'")
    yield page
    context.close()
    assert not errors


def run(page, prompt: str, answers: int) -> None:
    page.fill("#prompt", prompt)
    page.click("text=Run")
    page.wait_for_function(
        f"document.querySelectorAll('.answer').length >= {answers} && "
        "[...document.querySelectorAll('.answer')].every(answer => answer.textContent)"
    )


def test_a_canvas_fills_and_steps_back(page):
    run(page, QUESTION, 1)
    card = page.locator("article")
    assert ANSWER in card.locator(".answer").inner_text()
    page.wait_for_selector("article.ended")
    final = card.locator(".cells").inner_text()
    card.focus()
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelector('.numbers').textContent.includes('held')")
    masked = card.locator(".masked").count()
    assert masked == 96  # the server's dllm_gen_length
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("article .fresh")  # the legend has one too
    assert "first pass" in card.locator(".why").inner_text()
    assert 0 < card.locator(".masked").count() < masked
    passes = card.locator("input[type=range]").get_attribute("max")
    page.keyboard.press("End")
    page.wait_for_function("!document.querySelector('.numbers').textContent.includes('held')")
    assert card.locator(".cells").inner_text() == final
    assert card.locator(".numbers").inner_text().split("\n")[0] == f"pass {passes}"  # a frame for each


def test_two_policies_stand_side_by_side(page):
    page.check("#compare")
    page.select_option("#two select[name=dllm_cache]", "dual")
    run(page, QUESTION, 2)
    page.wait_for_function("document.querySelectorAll('article.ended').length == 2")
    names = [text.split(",")[0] for text in page.locator("article h3 span:first-child").all_inner_texts()]
    assert names == ["none", "dual"]
    assert page.locator("article .page").count() > 0


def test_markup_and_control_characters_are_text(page):
    run(page, HOSTILE, 1)
    page.wait_for_selector("article.ended")
    cells = page.locator("article .cells")
    assert cells.locator("img, b").count() == 0
    text = "".join(cells.locator(".prompt").all_inner_texts())
    assert "\u202e" not in text and "\u0007" not in text
    assert "<" in text


def test_a_setting_that_is_refused_says_why(page):
    page.evaluate("document.querySelector('#one input[name=dllm_gen_length]').max = 100000")
    page.evaluate("document.querySelector('#one input[name=dllm_gen_length]').value = 90000")
    run(page, QUESTION, 1)
    assert "90000" in page.locator(".answer.error").inner_text()


def test_a_request_of_the_trace_file_is_replayed(page, server, client):
    answer = client.chat.completions.create(model=server.model, messages=MESSAGES)
    server.trace(answer.id)
    page.goto(f"{server.url}/dllm?trace={answer.id}")
    page.wait_for_selector("article.ended")
    shown = page.locator("article .cell:not(.prompt)").all_text_contents()
    assert "".join(shown).startswith(ANSWER)
    page.goto(f"{server.url}/dllm?trace=nothing")
    page.wait_for_selector(".answer.error")


def test_many_running_requests_do_not_break_it(page, server, client):
    """As many as the step's token budget takes; the others wait. One that is not among the first is looked at."""
    many = 60
    long = {"max_tokens": 32, "extra_body": {"ignore_eos": True, "vllm_xargs": {"dllm_steps": 32}}}
    with ThreadPoolExecutor(many) as pool:
        asked = [
            pool.submit(client.chat.completions.create, model=server.model, messages=MESSAGES, **long)
            for _ in range(many)
        ]
        page.wait_for_function("document.querySelectorAll('#running tbody tr').length >= 30")
        last = page.locator("#running tbody tr").last
        name = last.locator("td").first.inner_text()
        last.locator("button").click()
        page.wait_for_selector(f"article[aria-label='canvas of {name}'] .cell")
        assert all(one.result().choices for one in asked)
    page.wait_for_function("document.querySelectorAll('#running tbody tr').length == 0")
    page.wait_for_function("document.querySelectorAll('article').length == document.querySelectorAll('.ended').length")


def test_all_that_shows_requests_is_behind_the_servers_key():
    open_to_all = {route.path for route in router.routes if not route.path.startswith(GUARDED_PREFIX)}
    assert open_to_all == {"/dllm", "/dllm/{name}"}


def test_events_without_a_browser(server, client):
    """What is told of a request: its canvas, each of its passes, its end; added up, its answer."""
    with httpx.stream("GET", f"{server.url}/v1/dllm/watch?first=true", timeout=60) as stream:
        lines = map(json.loads, stream.iter_lines())
        assert next(lines) == {"ready": True}
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.chat.completions.create, model=server.model, messages=MESSAGES)
            events = []
            for event in lines:
                if "id" in event:
                    events.append(event)
                if "ended" in event:
                    break
            answer = asked.result()
    whole, *passes, ended = events
    assert {event["id"] for event in events} == {whole["id"]} and whole["id"].startswith(answer.id)
    trace = server.trace(answer.id)
    tokens = whole["tokens"]
    for event in passes:
        for position, token in zip(event["unmasked"], event["put"], strict=True):
            tokens[position] = token
    assert tokens[whole["prompt_len"] :] == trace["output_ids"]
    assert [sum(b - a for a, b in event["computed"]) for event in passes] == trace["query_tokens"]
    assert passes[0]["refreshed"] == {"first pass": list(range(len(whole["pages"])))}
    assert ended["ended"] == "stop"


def test_files_beside_the_page_are_not_served(server):
    assert httpx.get(server.url + "/dllm/watch.js", timeout=30).status_code == 200
    assert httpx.get(server.url + "/dllm/../viewer.py", timeout=30).status_code == 404
    assert httpx.get(server.url + "/dllm/%2e%2e%2fviewer.py", timeout=30).status_code == 404
