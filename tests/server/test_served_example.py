"""examples/streaming_chat.py, run as a user runs it."""

import os
import subprocess
import sys

from common import ROOT
from served import ANSWER, QUESTION

REFUSED = '{"dllm_threshold": 7}'


def chat(server, *arguments: str, typed: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / "streaming_chat.py", "--url", server.url + "/v1", *arguments],
        input=typed,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


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
