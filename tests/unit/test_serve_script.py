"""`make serve`: with which arguments it calls `vllm serve`."""

import os
import shlex
import subprocess
import sys

import pytest
from common import ROOT

from vllm_dllm.models import FAMILIES

sys.path.append(str(ROOT / "tools"))
import serve  # noqa: E402

LLADA, SDAR, LLADA2 = "checkpoints/tiny-llada", "checkpoints/tiny-sdar", "checkpoints/tiny-llada2"


def arguments(*given: str, monkeypatch) -> list[str]:
    """Of `vllm serve`, where make is asked so, without the port."""
    monkeypatch.chdir(ROOT)
    # Nothing of a make that runs this test: its own ARGS, or that it is one inside another.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    make = subprocess.run(["make", "-n", "serve", *given], capture_output=True, text=True, check=True, env=env)
    line = shlex.split(make.stdout.splitlines()[-1])
    passed, port = serve.read(line[line.index("tools/serve.py") + 1 :])
    assert port == 8000
    at = passed.index("--port")
    return passed[:at] + passed[at + 2 :]


def test_it_knows_every_architecture_that_is_causal_by_blocks():
    assert set(serve.IN_BLOCKS) == {a for f in FAMILIES if f.attention == "blocks" for a in f.architectures}


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ((), [LLADA, "--dllm-cache", "entropy", "--dllm-horizon", "32"]),
        (("CACHE=dual",), [LLADA, "--dllm-horizon", "32", "--dllm-cache", "dual"]),
        (("CACHE=", "HORIZON="), [LLADA]),
        ((f"MODEL={SDAR}",), [SDAR]),
        ((f"MODEL={SDAR}", "CACHE=block"), [SDAR, "--dllm-cache", "block"]),
        ((f"MODEL={SDAR}", "HORIZON=32"), [SDAR, "--dllm-horizon", "32"]),
        ((f"MODEL={LLADA2}", "ARGS=--dllm-watch true"), [LLADA2, "--dllm-watch", "true"]),
        (("MODEL=/no/such/folder",), ["/no/such/folder", "--dllm-cache", "entropy", "--dllm-horizon", "32"]),
    ],
)
def test_defaults_are_for_models_that_they_fit(given, passed, monkeypatch):
    assert arguments(*given, monkeypatch=monkeypatch) == passed


def test_what_a_user_gives_comes_last_and_so_counts(monkeypatch):
    found = arguments("ARGS=--dllm-cache dual", monkeypatch=monkeypatch)
    assert found == [LLADA, "--dllm-cache", "entropy", "--dllm-horizon", "32", "--dllm-cache", "dual"]
