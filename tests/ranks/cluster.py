"""A Ray cluster apart from any other on this machine: its own ports, folder and token, and nothing left of it."""

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from server_process import free_port

START_S, STOP_S = 120, 30  # more than enough on two busy cores
# Ray listens on all of the machine's addresses and runs what it is sent: only with this token.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
BIN = os.path.dirname(sys.executable)
# Ray's own 15 would have the ranks wait for whatever test the other process runs.
NICENESS = {"RAY_worker_niceness": "0"}
ENVIRONMENT = os.environ | TOKEN | NICENESS | {"PATH": BIN + os.pathsep + os.environ["PATH"]}
SMALL = ("--disable-usage-stats", "--include-log-monitor=false", f"--object-store-memory={100 << 20}")


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends: a killed pytest leaves no cluster behind."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Node:
    """One node of a cluster: `ray start --block`, perhaps by way of other commands, and all that it starts."""

    def __init__(self, *command: str):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*command, *SMALL],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        deadline = time.monotonic() + START_S
        while "--block" not in self.said():  # the last it says is what this option means
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"`ray start` has ended, or hangs:\n{self.said()}")
            time.sleep(0.1)

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def processes(self) -> list[psutil.Process]:
        """All that run on this node, the ranks of an engine among them."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        """End the node as `ray stop` does, and see that it is gone, with all that ran on it."""
        processes = self.processes()
        self.process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(processes, timeout=STOP_S)
        for process in left:
            process.kill()
        self.process.wait()
        assert not left, f"processes left behind: {left}"


class Cluster(Node):
    """A cluster and its first node, with `cpus` CPUs: room for as many ranks.

    `environment` is what a client needs besides its own to find it and to be let in.
    """

    def __init__(self, cpus: int = 2):
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.environment = TOKEN | {"RAY_ADDRESS": self.address}
        # not in pytest's folder: the paths of Ray's sockets may have 107 characters
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        super().__init__(
            *("ray", "start", "--block", "--head"),
            *(f"--port={port}", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", f"--temp-dir={self.folder}"),
            *(f"--ray-client-server-port={free_port()}", "--include-dashboard=false"),
        )

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
