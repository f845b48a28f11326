"""Where a machine's engines tell what happens in them."""

import os

from vllm.config import VllmConfig
from vllm.utils.network_utils import get_open_zmq_ipc_path

ADDRESS = "VLLM_DLLM_WATCH"  # in the environment of a server's processes


def choose() -> None:
    """Choose a place, in the process that starts the others."""
    os.environ.setdefault(ADDRESS, get_open_zmq_ipc_path())


def place(config: VllmConfig) -> tuple[str, int]:
    """That of this engine core, and its number among the machine's."""
    rank = config.parallel_config.data_parallel_rank_local or 0
    return _of_rank(rank), rank


def addresses(config: VllmConfig) -> list[str]:
    """Those of this machine's engine cores, as an API server knows them."""
    return [_of_rank(rank) for rank in range(config.parallel_config.data_parallel_size_local)]


def _of_rank(rank: int) -> str:
    return f"{os.environ[ADDRESS]}-{rank}"
