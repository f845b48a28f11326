"""Our patches on a server where another plugin wraps the same functions, and applies ours in reverse order.

What dead_engine.py and shared_memory.py do there is in tests/ranks/test_killed_rank.py.
"""

from concurrent.futures import ThreadPoolExecutor

import foreign_plugin
import pytest
from served import GEN_LENGTH, MESSAGES, QUESTION, text_prompt
from server_process import start, stop, wait_until_healthy

PROMPT = text_prompt(QUESTION)
REFUSED = {"vllm_xargs": {"dllm_threshold": 7}}
BEAMS = {"use_beam_search": True, "n": 2, "max_tokens": 8}
BAD = {
    "in the wrong place": ("/v1/completions", {"prompt": PROMPT, "dllm_cache": "none"}, "must be in vllm_xargs"),
    "completion": ("/v1/completions", {"prompt": PROMPT} | REFUSED, "dllm_threshold=7"),
    "stream": ("/v1/chat/completions", {"messages": MESSAGES, "stream": True} | REFUSED, "dllm_threshold=7"),
    "response": ("/v1/responses", {"input": QUESTION, "stream": True} | REFUSED, "dllm_threshold=7"),
    "beams": ("/v1/completions", {"prompt": PROMPT} | BEAMS, "use_beam_search=True"),
    "too long": ("/v1/completions", {"prompt": PROMPT, "max_tokens": 500}, "max_tokens=500"),
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    server = start(folder, environment=foreign_plugin.install(folder / "plugin"), max_num_seqs=2)
    try:
        wait_until_healthy(server)
        yield server
    finally:
        server.process.kill()


@pytest.mark.parametrize("case", list(BAD))
def test_bad_requests_are_refused(foreign, case):
    path, body, sentence = BAD[case]
    answer = foreign.post(path, body)
    assert answer.status_code == 400 and sentence in answer.text, answer.text


def test_a_request_without_a_length_gets_the_servers(foreign):
    """Which a `--dllm-*` flag has set."""
    answer = foreign.post("/v1/completions", {"prompt": PROMPT, "ignore_eos": True}).json()
    assert answer["usage"]["completion_tokens"] == GEN_LENGTH
    answer = foreign.post("/v1/completions", {"prompt": PROMPT, "ignore_eos": True, "max_tokens": 40}).json()
    assert answer["usage"]["completion_tokens"] == 40


def test_requests_that_wait_when_it_is_stopped_are_answered(foreign):
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(foreign.ask_long, False) for _ in range(4)]
        foreign.wait(lambda: foreign.metric("num_requests_running") == 2, "running requests")
        foreign.wait(lambda: foreign.metric("num_requests_waiting") == 2, "waiting requests")
        stop(foreign)
        errors = [answer.result() for answer in answers]
    assert [error.status_code for error in errors] == [503] * 4
