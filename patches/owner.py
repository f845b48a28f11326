"""A process of vLLM's ends when the one that started it has ended, and soon when it is told to.

What: engine cores, ranks, API servers and the data-parallel coordinator of one of our models look once a second whether
  the process that started them is still there. When it is not, they end in order, and by force if that takes longer
  than a few seconds. Whenever they end, they leave without taking Python apart.
Why: vLLM's processes end when they are told to. Who is killed, by SIGKILL or by a signal that nobody handles (a script's
  SIGTERM, a server's SIGHUP), tells them nothing, and its engine went on for good. And they have five seconds to end
  in, a rank within those of its engine core: on a busy machine Python's last garbage collection took longer, and
  complete results were followed by "force killing remaining process EngineCore".
Applied: by engine_config.py, in the process that starts the others.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM's processes watch their parents, and end at once.
"""

import atexit
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.process import BaseProcess

from vllm.logger import init_logger

from vllm_dllm.patches.wrap import wrap

logger = init_logger(f"vllm.{__name__}")

LOOK_S, END_S = 1, 5  # twice both, for a rank whose engine core must be ended by force, is less than 20 s


def watch() -> None:
    """For a process that `multiprocessing` started: end when its parent has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes: the owner ends by it, and this one in order
    threading.Thread(target=_end_after, args=(parent,), name="OwnerWatch", daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    # the parent's end of a pipe closes with it, unless a forked process holds it too; and an orphan gets another parent
    first = os.getppid()
    while parent.is_alive() and os.getppid() == first:
        time.sleep(LOOK_S)
    signal.alarm(END_S)  # ends the process, whatever it is doing then
    logger.warning("Process %d, which started this one, has ended: this one ends too.", parent.pid)
    os.kill(os.getpid(), signal.SIGTERM)


def _main(original, *args, **kwargs):
    """A process's main function."""
    watch()
    status = 1  # of an exception, which multiprocessing prints
    try:
        original(*args, **kwargs)
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
        raise
    finally:
        # all is done and written: as a forked process does, this one leaves without taking Python apart
        atexit.register(os._exit, status)


def _run_engine_core(original, *args, **kwargs):
    """An engine core's main function. It starts the ranks, and shares a queue with them."""
    from vllm.v1.executor.multiproc_executor import WorkerProc

    from vllm_dllm.patches import shared_memory

    wrap(WorkerProc, "worker_main", _main)
    shared_memory.apply()
    _main(original, *args, **kwargs)


def apply() -> None:
    """For a process that is about to start others for one of our models."""
    from vllm.v1 import utils
    from vllm.v1.engine.coordinator import DPCoordinatorProc
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.multiproc_executor import WorkerProc

    wrap(EngineCoreProc, "run_engine_core", _run_engine_core)
    wrap(WorkerProc, "worker_main", _main)  # here too: an engine can do without a process of its own
    wrap(DPCoordinatorProc, "run_coordinator", _main)
    wrap(utils, "run_api_server_worker_proc", _main)
