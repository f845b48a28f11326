"""Whoever started an engine ends, in whatever way: all processes of the engine end too, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from processes import END_S, check_gone, end_group, shared_memory, titled, tree, wait

TESTS = Path(__file__).parent.parent
START_S = 400
FEW, MANY = 50, 1500  # steps: a second or two, and half a minute


class Script:
    """owner.py in a process of its own, and what it prints."""

    def __init__(self, log: IO[bytes], ranks: int, steps: int):
        self.log = Path(log.name)
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "owner.py", str(ranks), str(steps)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, is_so: Callable[[], bool]) -> None:
        wait(lambda: is_so() or self.process.poll() is not None, time.monotonic() + START_S)
        assert is_so(), self.log.read_text()[-4000:]

    def printed(self, text: str) -> bool:
        return text in self.log.read_text()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Script]]:
    """Starts the script, and ends what is left of it should a test fail."""
    scripts = []

    def started(ranks: int, steps: int = MANY) -> Script:
        with open(tmp_path / "script.log", "wb") as log:
            scripts.append(Script(log, ranks, steps))
        return scripts[-1]

    yield started
    for script in scripts:
        end_group(script.process)


def see_all_end(script: Script, end: Callable[[], None], seconds: float = END_S) -> None:
    processes = tree(script.process.pid)
    shared = shared_memory(processes)
    end()
    script.process.wait(START_S)
    check_gone(processes, shared, time.monotonic() + seconds)


@pytest.mark.parametrize("number, ranks", [(signal.SIGTERM, 1), (signal.SIGKILL, 2)])
def test_script_that_is_killed_while_it_generates(start, number, ranks):
    script = start(ranks)
    script.wait(lambda: script.printed("generating"))
    # one rank computes in its engine core's process
    assert len(titled("Worker", tree(script.process.pid))) == (ranks if ranks > 1 else 0)
    see_all_end(script, lambda: script.process.send_signal(number))
    assert script.process.returncode == -number


def test_script_that_is_killed_while_its_engine_starts(start):
    """A process that still imports vLLM, which takes long on a busy machine, sees it afterwards."""
    script = start(1)
    script.wait(lambda: bool(titled("spawn_main", tree(script.process.pid))))
    see_all_end(script, lambda: script.process.send_signal(signal.SIGHUP), seconds=120)


def test_script_that_fails(start):
    """Here vLLM ends all itself: in order, or by force where that takes longer than its five seconds."""
    script = start(1, FEW)
    script.wait(lambda: script.printed("generating"))
    see_all_end(script, lambda: None)
    assert script.process.returncode == 1
    assert script.printed("RuntimeError: the script fails")


def test_terminal_of_a_script_that_closes(start):
    """All its processes get the signal at once."""
    script = start(1)
    script.wait(lambda: script.printed("generating"))
    see_all_end(script, lambda: os.killpg(script.process.pid, signal.SIGHUP))
