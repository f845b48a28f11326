"""On CPU, how many threads each rank gets, and whether it has a process of its own."""

import json
import os
import subprocess
import sys

import pytest
from common import CHECKPOINTS, ENGINE
from vllm import EngineArgs

from vllm_dllm.engine_config import BIND, SPINS, THREADS

SHARE = str(max(1, len(os.sched_getaffinity(0)) // 2))  # of two ranks


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    """This process's, without what a developer has set. Put back at the end."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in (BIND, SPINS, THREADS):
        os.environ.pop(name, None)
    return os.environ


def configure(**arguments):
    """vLLM's ParallelConfig."""
    args = EngineArgs(model=str(CHECKPOINTS / "tiny-llada"), **(ENGINE | arguments))
    return args.create_engine_config().parallel_config


@pytest.mark.parametrize("ranks", [{"tensor_parallel_size": 2}, {"data_parallel_size": 2}])
def test_unbound_ranks_share_the_cores(environment, ranks):
    environment[BIND] = "nobind"
    configure(**ranks)
    assert (environment[BIND], environment[THREADS]) == ("nobind", SHARE)


def test_threads_that_the_user_has_set_stay(environment):
    environment |= {BIND: "nobind", THREADS: "3"}
    configure(tensor_parallel_size=2)
    assert (environment[BIND], environment[THREADS]) == ("nobind", "3")


def test_cores_that_the_user_has_named_stay(environment):
    environment[BIND] = "0|1"
    configure(tensor_parallel_size=2)
    assert environment[BIND] == "0|1" and THREADS not in environment


def test_one_rank_has_what_the_user_says(environment):
    environment[BIND] = "nobind"
    configure()
    assert environment[BIND] == "nobind" and THREADS not in environment


def test_an_engine_of_one_rank_does_not_inherit_the_share_of_an_earlier_one(environment):
    configure(tensor_parallel_size=2)
    configure()
    assert BIND not in environment and THREADS not in environment


def test_one_rank_computes_in_the_engine_cores_process(environment):
    executor = configure().distributed_executor_backend
    assert executor == "vllm_dllm.worker.one_process.OneProcessExecutor"
    assert SPINS in environment
    configure(tensor_parallel_size=2)
    assert SPINS not in environment, "several ranks do not inherit what one was given"


@pytest.mark.parametrize("arguments", [{"distributed_executor_backend": "mp"}, {"tensor_parallel_size": 2}])
def test_a_worker_has_a_process_of_its_own_where_the_user_says_so_or_there_are_several(environment, arguments):
    assert configure(**arguments).distributed_executor_backend == "mp"
    assert SPINS not in environment


def test_an_engine_in_the_users_process_stays_there(environment):
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    assert configure().distributed_executor_backend == "uni"


CORES = sorted(os.sched_getaffinity(0))
TAKEN = """
import json, os, sys
import torch
from test_cores import configure
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.config import VllmConfig
from vllm_dllm.worker.one_process import take_cores

cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
config = VllmConfig()
for environment in json.loads(sys.argv[1]):
    os.environ.update(environment)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)
    take_cores(OMPProcessManager(config))
    print("taken", json.dumps([sorted(os.sched_getaffinity(0)), torch.get_num_threads()]))
    for name in environment:
        del os.environ[name]
"""


@pytest.mark.skipif(len(CORES) < 2, reason="one core")
def test_the_cores_and_threads_of_one_process(environment):
    """In a process of their own: all cores, but those that the user reserves; what the user binds; what OpenMP is told."""
    first = CORES[0]
    wanted = [
        ({}, [CORES, len(CORES)]),
        ({"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}, [CORES[:-1], len(CORES) - 1]),
        ({BIND: str(first)}, [[first], 1]),
        ({BIND: "nobind"}, [CORES, len(CORES)]),
        ({THREADS: "1"}, [CORES, len(CORES)]),  # read when PyTorch was loaded, and left as it is
    ]
    ran = subprocess.run(
        [sys.executable, "-c", TAKEN, json.dumps([given for given, _ in wanted])],
        env=environment | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    taken = [json.loads(line[6:]) for line in ran.stdout.splitlines() if line.startswith("taken ")]
    assert taken == [cores for _, cores in wanted]
