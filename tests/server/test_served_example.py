"""The examples that need a server, run as a user runs them."""

import json
import os
import re
import subprocess
import sys

from common import ROOT
from served import ANSWER, QUESTION

REFUSED = '{"dllm_threshold": 7}'


def run(script: str, server, *arguments: str, typed: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / script, "--url", server.url + "/v1", *arguments],
        input=typed,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def chat(server, *arguments: str, typed: str = "") -> subprocess.CompletedProcess:
    return run("streaming_chat.py", server, *arguments, typed=typed)


def test_one_question(server):
    result = chat(server, QUESTION)
    assert (result.returncode, result.stdout) == (0, ANSWER + "\n"), result.stderr


def test_from_the_terminal(server):
    """Each line is a conversation of its own; settings and length arrive."""
    settings = '{"dllm_cache": "dual", "dllm_tokens_per_step": 2}'
    result = chat(server, "--max-tokens", "64", "--settings", settings, typed="echo hello\n\necho again\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "> hello\n> > again\n> \n"


def test_refusal(server):
    result = chat(server, QUESTION, "--settings", REFUSED)
    assert result.returncode == 1 and not result.stdout
    assert "dllm_threshold=7 is not allowed" in result.stderr


def test_fill_in_the_middle(server):
    arguments = ("3 7___ 19 23", "--question", QUESTION, "--max-tokens", "6")
    result = run("fill_in_the_middle.py", server, *arguments)
    assert (result.returncode, result.stdout) == (0, ANSWER + "\n"), result.stderr
    result = run("fill_in_the_middle.py", server, *arguments, "--stop", "5")
    assert (result.returncode, result.stdout) == (0, "3 7 11 1 19 23\n"), result.stderr


def test_extraction_into_a_schema(server):
    for more in ((), ("--settings", '{"dllm_cache": "entropy", "dllm_threshold": 0.1}')):
        result = run("extraction.py", server, QUESTION, *more)
        assert result.returncode == 0, result.stderr
        count, numbers = re.fullmatch(r"(\d+) numbers, (?:not )?sure: (\[.*\])\n", result.stdout).groups()
        assert len(json.loads(numbers)) == int(count) > 0
    result = run("extraction.py", server, QUESTION, "--max-tokens", "10")
    assert (
        result.returncode == 1 and "max_tokens=10 is not allowed with this format: it must be at least" in result.stderr
    )


def test_a_form(server):
    result = run("form.py", server, QUESTION, "3 7 {5} 19 {2}")
    assert (result.returncode, result.stdout) == (0, ANSWER + "\n"), result.stderr
    result = run("form.py", server, "calc 12+7", "12+7={2};#{2}", "--settings", '{"dllm_cache": "dual"}')
    assert (result.returncode, result.stdout) == (0, "12+7=19;#19\n"), result.stderr
    result = run("form.py", server, QUESTION, "no hole")
    assert result.returncode == 1 and "it must have a masked position" in result.stderr
