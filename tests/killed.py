"""A process of a server is killed while requests run and wait: what the server says, and that nothing of it is left."""

import time
from concurrent.futures import ThreadPoolExecutor

import openai
import psutil
from processes import check_gone, shared_memory, wait
from served import Server

EXIT_S = 30


def kill_and_see(server: Server, victim: psutil.Process, processes: list[psutil.Process], requests: int) -> None:
    """Kill `victim` while some of so many requests run, and the others wait. `processes` must end, and their shared
    memory."""

    def some_run_and_the_others_wait() -> bool:
        running, waiting = (server.metric(f"num_requests_{state}") for state in ("running", "waiting"))
        return running > 0 and waiting > 0 and running + waiting == requests

    with ThreadPoolExecutor(requests) as pool:
        streams = [i % 2 == 0 for i in range(requests)]
        answers = [pool.submit(server.ask_long, stream) for stream in streams]
        server.wait(some_run_and_the_others_wait, "running and waiting requests")
        shared = shared_memory(processes)
        deadline = time.monotonic() + EXIT_S
        victim.kill()
        errors = [answer.result() for answer in answers]
    assert time.monotonic() < deadline
    for stream, error in zip(streams, errors, strict=True):
        # a stream has sent its status, 200, before: there the error is an event
        assert type(error) is (openai.APIError if stream else openai.InternalServerError), error
        assert "EngineCore encountered an issue" in error.message

    wait(lambda: server.process.poll() is not None, deadline)
    assert server.process.returncode == 1
    assert "The engine died; the server ends with status 1." in server.log_file.read_text()
    check_gone(processes, shared, deadline)
