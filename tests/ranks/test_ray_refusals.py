"""What cannot work over Ray on a CPU machine is refused at once, by name."""

import os
import subprocess
import sys

import pytest
from common import CHECKPOINTS
from vllm.engine.arg_utils import EngineArgs

MODEL = str(CHECKPOINTS / "tiny-llada")
# as the engine's process does
START = """
import sys
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.executor import Executor
config = EngineArgs(sys.argv[1], tensor_parallel_size=4, distributed_executor_backend="ray").create_engine_config()
Executor.get_class(config)(config)
"""


def test_more_ranks_than_cpus(cluster):
    """vLLM waits half an hour for more."""
    started = subprocess.run(
        [sys.executable, "-c", START, MODEL], env=os.environ | cluster.environment, capture_output=True, text=True
    )
    assert started.returncode
    assert (
        "SettingError: tensor_parallel_size=4 is not allowed: it must be at most the number of CPUs" in started.stderr
    )


def test_no_cluster_named(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="is not allowed on CPU without RAY_ADDRESS .*ray start --head"):
        EngineArgs(MODEL, distributed_executor_backend="ray").create_engine_config()


def test_the_older_ray_executor(monkeypatch):
    monkeypatch.setenv("VLLM_USE_RAY_V2_EXECUTOR_BACKEND", "0")
    with pytest.raises(ValueError, match="VLLM_USE_RAY_V2_EXECUTOR_BACKEND=0 is not allowed on CPU: it must be 1"):
        EngineArgs(MODEL, distributed_executor_backend="ray").create_engine_config()
