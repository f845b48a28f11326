"""The servers of this folder end while requests run and wait: the last of its tests (conftest.py)."""

from concurrent.futures import ThreadPoolExecutor

from killed import kill_and_see
from processes import titled, tree
from server_process import stop

REQUESTS = 24  # a step has not room enough for the first passes of all


def test_all_requests_get_an_error_and_nothing_holds_the_server_back(server):
    streams = [i % 2 == 0 for i in range(REQUESTS)]
    with ThreadPoolExecutor(len(streams)) as pool:
        answers = [pool.submit(server.ask_long, stream) for stream in streams]
        states = ("num_requests_running", "num_requests_waiting")
        server.wait(lambda: all(server.metric(state) for state in states), "running and waiting requests")
        stop(server)
        errors = [answer.result() for answer in answers]
    for stream, error in zip(streams, errors, strict=True):
        assert "The server was stopped." in error.message
        # a stream has sent its status, 200, before: there the error is an event
        assert stream or error.status_code == 503, error


def test_an_engine_core_that_dies(damaged):
    """With its one rank. Of several ranks: tests/ranks/test_killed_rank.py."""
    processes = tree(damaged.process.pid)
    (victim,) = titled("EngineCore", processes)
    kill_and_see(damaged, victim, processes, REQUESTS)
    assert "engine core exited unexpectedly" in damaged.log_file.read_text()
