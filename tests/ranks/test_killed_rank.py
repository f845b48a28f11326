"""A rank that dies: the server says so, answers every waiting request with an error, exits, and leaves nothing behind.

Servers of two ranks answer golden cases first: starting one takes half a minute.
"""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import foreign_plugin
import openai
import psutil
import pytest
from golden_cases import sample
from processes import check_gone, end_group, shared_memory, titled, tree, wait
from sampling import Sampling
from served import Server
from server_process import start, wait_until_healthy

EXIT_S = 30
RUNNING, WAITING = 4, 4


def check_golden(server: Server, model: str, sampling: Sampling) -> None:
    cases = sample(model, sampling)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda case: case.ask(server), cases))
    sampling.check([c.difference(*a) for c, a in zip(cases, answers, strict=True)])


def kill_and_see(server: Server, victim: psutil.Process, processes: list[psutil.Process]) -> None:
    """Kill `victim` while requests run and wait. `processes` must end, and their shared memory."""

    with ThreadPoolExecutor(RUNNING + WAITING) as pool:
        streams = [i % 2 == 0 for i in range(RUNNING + WAITING)]
        answers = [pool.submit(server.ask_long, stream) for stream in streams]
        server.wait(lambda: server.metric("num_requests_running") == RUNNING, "running requests")
        server.wait(lambda: server.metric("num_requests_waiting") == WAITING, "waiting requests")
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


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable[..., Server]]:
    """Starts a server, and ends what is left of it should a test fail."""
    servers = []

    def healthy(**options) -> Server:
        servers.append(start(tmp_path, max_num_seqs=RUNNING, **options))
        wait_until_healthy(servers[-1])
        return servers[-1]

    yield healthy
    for server in servers:
        end_group(server.process)


def test_rank_of_multiprocessing(serve, sampling, tmp_path):
    """With another plugin that wraps what our patches wrap."""
    foreign = foreign_plugin.install(tmp_path / "plugin")
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp", "dllm_hidden_cache": "true"}
    server = serve(model="tiny-dream", environment=foreign, **ranks)
    check_golden(server, "tiny-dream", sampling)
    processes = tree(server.process.pid)
    (victim,) = titled("Worker_TP1", processes)
    kill_and_see(server, victim, processes)
    assert "Worker proc VllmWorker-1 died unexpectedly" in server.log_file.read_text()


def test_rank_of_ray(serve, cluster, sampling):
    """The cluster goes on, without the server's ranks."""
    ray = {"tensor_parallel_size": 2, "distributed_executor_backend": "ray", "dllm_hidden_cache": "true"}
    server = serve(environment=cluster.environment, **ray)
    check_golden(server, "tiny-llada", sampling)
    ranks = titled("RayCPUWorkerProc", cluster.processes())
    assert len(ranks) == 2, [p.cmdline() for p in cluster.processes()]
    kill_and_see(server, ranks[0], ranks + tree(server.process.pid))
    assert re.search(r"RayWorkerProc rank=\[[01]\] died unexpectedly", server.log_file.read_text())
    assert cluster.process.poll() is None


def test_engine_core_of_one_rank(serve):
    server = serve()
    processes = tree(server.process.pid)
    (victim,) = titled("EngineCore", processes)
    kill_and_see(server, victim, processes)
    assert "engine core exited unexpectedly" in server.log_file.read_text()
