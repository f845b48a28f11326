"""How many threads each rank gets on CPU: what vLLM's processes inherit in their environment."""

import os

import pytest
from common import CHECKPOINTS, ENGINE
from vllm import EngineArgs

from vllm_dllm.engine_config import BIND, THREADS

SHARE = str(max(1, len(os.sched_getaffinity(0)) // 2))  # of two ranks


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    """This process's, without what a developer has set. Put back at the end."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in (BIND, THREADS):
        os.environ.pop(name, None)
    return os.environ


def configure(**ranks: int) -> None:
    EngineArgs(model=str(CHECKPOINTS / "tiny-llada"), **(ENGINE | ranks)).create_engine_config()


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
