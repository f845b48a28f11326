"""On CPU with one rank: the engine core computes itself, without a worker's process beside it."""

import os

import torch
from vllm.logger import init_logger
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.executor.uniproc_executor import UniProcExecutor

logger = init_logger(f"vllm.{__name__}")


class OneProcessExecutor(UniProcExecutor):
    """vLLM's executor for one process, with the threads that its executor for several would give a worker.

    vLLM's CPU platform replaces its own by the one for several, because OpenMP takes its threads from the environment
    of a process that starts. PyTorch's can be set afterwards too, as long as nothing was computed.
    """

    def _init_executor(self) -> None:
        take_cores(OMPProcessManager(self.vllm_config))
        super()._init_executor()


def take_cores(manager: OMPProcessManager) -> None:
    """Give this process the cores of the first rank, and the threads to use them, unless the user has said how many.

    `manager` reserves a core for an engine core beside the ranks. There is none here, so it is taken too, unless the
    user has reserved it (VLLM_CPU_NUM_OF_RESERVED_CPU).
    """
    if not manager.skip_setup:  # VLLM_CPU_OMP_THREADS_BIND=nobind
        cores = set(manager.cpu_lists[0])
        if "VLLM_CPU_NUM_OF_RESERVED_CPU" not in os.environ:
            cores |= set(manager.reserved_cpu_list)
        os.sched_setaffinity(0, cores)  # of the threads that are started from now on, too
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(len(cores))
    logger.info(
        "This process computes too: %d threads on cores %s", torch.get_num_threads(), sorted(os.sched_getaffinity(0))
    )
