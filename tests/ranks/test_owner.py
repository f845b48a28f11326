"""Whoever started an engine ends, in whatever way: all processes of the engine end too, and leave nothing behind."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest
from processes import END_S, check_gone, kill_group, shared_memory, titled, tree, wait

TESTS = Path(__file__).parent.parent
START_S = 400
FEW, MANY = 50, 1500  # steps: a second or two, and half a minute


class Scripts:
    """The process of owner.py, which forks scripts: importing vLLM takes longer than what is tested here."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "owner.py"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, log: Path, ranks: int, steps: int) -> "Script":
        log.touch()
        self.process.stdin.write(f"{ranks} {steps} {log}\n")
        self.process.stdin.flush()
        return Script(int(self.process.stdout.readline()), log, self.process.stdout)


class Script:
    """One of them, and what it prints."""

    def __init__(self, pid: int, log: Path, statuses: IO[str]):
        self.pid = pid
        self.log = log
        self._statuses = statuses

    @functools.cached_property
    def returncode(self) -> int:
        """Waits for its end."""
        return int(self._statuses.readline())

    def wait(self, is_so: Callable[[], bool]) -> None:
        wait(lambda: is_so() or not psutil.pid_exists(self.pid), time.monotonic() + START_S)
        assert is_so(), self.log.read_text()[-4000:]

    def printed(self, text: str) -> bool:
        return text in self.log.read_text()


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    scripts = Scripts()
    try:
        yield scripts
    finally:
        scripts.process.communicate(timeout=60)  # it ends with its input


@pytest.fixture
def start(scripts, tmp_path) -> Iterator[Callable[..., Script]]:
    """Starts a script, and ends what is left of it should a test fail."""
    started = []

    def start(ranks: int, steps: int = MANY) -> Script:
        started.append(scripts.start(tmp_path / "script.log", ranks, steps))
        return started[-1]

    yield start
    for script in started:
        kill_group(script.pid)
        assert script.returncode is not None


def see_all_end(script: Script, end: Callable[[], None], seconds: float = END_S) -> int:
    """The script's exit status."""
    processes = tree(script.pid)
    shared = shared_memory(processes)
    end()
    status = script.returncode
    check_gone(processes, shared, time.monotonic() + seconds)
    return status


@pytest.mark.parametrize("number, ranks", [(signal.SIGTERM, 1), (signal.SIGKILL, 2)])
def test_script_that_is_killed_while_it_generates(start, number, ranks):
    script = start(ranks)
    script.wait(lambda: script.printed("generating"))
    # one rank computes in its engine core's process
    assert len(titled("Worker", tree(script.pid))) == (ranks if ranks > 1 else 0)
    assert see_all_end(script, lambda: os.kill(script.pid, number)) == -number


def test_script_that_is_killed_while_its_engine_starts(start):
    """A process that still imports vLLM, which takes long on a busy machine, sees it afterwards."""
    script = start(1)
    script.wait(lambda: bool(titled("spawn_main", tree(script.pid))))
    see_all_end(script, lambda: os.kill(script.pid, signal.SIGHUP), seconds=120)


def test_script_that_fails(start):
    """Here vLLM ends all itself: in order, or by force where that takes longer than its five seconds."""
    script = start(1, FEW)
    script.wait(lambda: script.printed("generating"))
    assert see_all_end(script, lambda: None) == 1
    assert script.printed("RuntimeError: the script fails")


def test_terminal_of_a_script_that_closes(start):
    """All its processes get the signal at once."""
    script = start(1)
    script.wait(lambda: script.printed("generating"))
    see_all_end(script, lambda: os.killpg(script.pid, signal.SIGHUP))
