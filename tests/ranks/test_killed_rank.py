"""A rank that dies: the server says so, answers every waiting request with an error, exits, and leaves nothing behind.

Servers of two ranks answer golden cases first: starting one takes half a minute. The engine core of one rank:
tests/server/test_stopping.py.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import foreign_plugin
import pytest
from golden_cases import sample
from killed import kill_and_see
from processes import end_group, titled, tree
from sampling import Sampling
from served import Server
from server_process import start, wait_until_healthy

RUNNING, REQUESTS = 4, 8


def check_golden(server: Server, sampling: Sampling) -> None:
    cases = sample("tiny-dream", sampling)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda case: case.ask(server), cases))
    sampling.check([c.difference(*a) for c, a in zip(cases, answers, strict=True)])


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable[..., Server]]:
    """Starts a server of two ranks, and ends what is left of it should a test fail."""
    servers = []

    def healthy(executor: str, environment: dict[str, str]) -> Server:
        ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": executor, "dllm_hidden_cache": "true"}
        servers.append(start(tmp_path, "tiny-dream", environment, max_num_seqs=RUNNING, **ranks))
        wait_until_healthy(servers[-1])
        return servers[-1]

    yield healthy
    for server in servers:
        end_group(server.process)


def test_rank_of_multiprocessing(serve, sampling, tmp_path):
    """With another plugin that wraps what our patches wrap."""
    server = serve("mp", foreign_plugin.install(tmp_path / "plugin"))
    check_golden(server, sampling)
    processes = tree(server.process.pid)
    (victim,) = titled("Worker_TP1", processes)
    kill_and_see(server, victim, processes, REQUESTS)
    assert "Worker proc VllmWorker-1 died unexpectedly" in server.log_file.read_text()


def test_rank_of_ray(serve, cluster, sampling):
    """The cluster goes on, without the server's ranks."""
    server = serve("ray", cluster.environment)
    check_golden(server, sampling)
    ranks = titled("RayCPUWorkerProc", cluster.processes())
    assert len(ranks) == 2, [p.cmdline() for p in cluster.processes()]
    kill_and_see(server, ranks[0], ranks + tree(server.process.pid), REQUESTS)
    assert re.search(r"RayWorkerProc rank=\[[01]\] died unexpectedly", server.log_file.read_text())
    assert cluster.process.poll() is None
