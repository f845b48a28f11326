"""A real `vllm serve` process: start it, wait for it, end it and see that nothing of it is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from common import CHECKPOINTS
from served import GEN_LENGTH, MAX_MODEL_LEN, Server

START_S, STOP_S = 400, 60  # more than enough on two busy cores


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(folder: Path, model: str = "tiny-llada", environment: dict[str, str] | None = None, **more: Any) -> Server:
    """Starts serving a bundled checkpoint, with its log and trace in `folder`; `more` are options of `vllm serve`, as
    in tensor_parallel_size=2 (None: a flag without a value), and `environment` is added to this process's."""
    port = free_port()
    server = Server(f"http://127.0.0.1:{port}", folder / "server.log", folder / "trace.jsonl")
    server.trace_file.touch()
    arguments = {
        "--dtype": "float32",
        "--max-model-len": MAX_MODEL_LEN,
        "--kv-cache-memory-bytes": 1 << 28,
        "--host": "127.0.0.1",
        "--port": port,
        "--served-model-name": server.model,
        "--dllm-cache": "none",
        "--dllm-gen-length": GEN_LENGTH,
        "--dllm-trace": server.trace_file,
    } | {f"--{name.replace('_', '-')}": value for name, value in more.items()}
    command = [os.path.join(os.path.dirname(sys.executable), "vllm"), "serve", str(CHECKPOINTS / model)]
    with open(server.log_file, "w") as log:
        server.process = subprocess.Popen(
            command + [str(part) for pair in arguments.items() for part in pair if part is not None],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
            start_new_session=True,  # its own process group: what it leaves behind can be found and ended
        )
    return server


def wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}:\n{server.log_tail()}")
        try:
            if httpx.get(server.url + "/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.5)
    raise TimeoutError(f"the server was not healthy after {START_S} s:\n{server.log_tail()}")


def stop(server: Server) -> None:
    """End the server as a service manager does, and see that it is gone, with all that it started."""
    try:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        assert processes, "the engine is no process of its own"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_S) == 0, f"exit status {server.process.returncode}:\n{server.log_tail()}"
        _, left = psutil.wait_procs(processes, timeout=10)
        assert not left, f"processes left behind: {left}"
    finally:
        try:
            os.killpg(server.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # as it should be: nothing is left
