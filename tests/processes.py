"""The processes of an engine, and what they share in memory."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil

END_S = 20  # by then nothing is left of an engine whose owner has ended


def tree(pid: int) -> list[psutil.Process]:
    own = psutil.Process(pid)
    return [own, *own.children(recursive=True)]


def titled(title: str, processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and title in " ".join(p.cmdline())]


def living(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # which has ended, and waits for init to note it
    except psutil.NoSuchProcess:
        return False


def shared_memory(processes: list[psutil.Process]) -> set[int]:
    """The inodes of the shared memory that `processes` have mapped."""
    inodes = set()
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        except OSError:
            continue  # one of those that a library starts for a moment, to ask the machine something
        inodes |= {int(line.split()[4]) for line in lines if "/dev/shm/" in line}
    return inodes


def names(inodes: set[int]) -> list[str]:
    """Those that still have a name: what nobody has unlinked stays for ever."""
    return [entry.name for entry in os.scandir("/dev/shm") if entry.inode() in inodes]


def wait(is_so: Callable[[], bool], deadline: float) -> None:
    """Until it is so, or the deadline (of `time.monotonic`) has come."""
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)


def check_gone(processes: list[psutil.Process], shared: set[int], deadline: float) -> None:
    """By the deadline all `processes` have ended, and the memory that they shared."""
    wait(lambda: not any(map(living, processes)), deadline)
    assert not [p for p in processes if living(p)]
    wait(lambda: not names(shared), deadline)
    assert not names(shared)


def kill_group(leader: int) -> None:
    """Kill what is left of its process group, should a test have failed."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass  # as it should be: nothing is left


def end_group(leader: subprocess.Popen) -> None:
    kill_group(leader.pid)
    leader.wait()
