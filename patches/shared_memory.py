"""Shared memory without a name, once all who share it have it.

What: in the ranks and engine cores of our models, the shared memory of message queues and, on CPU, of tensor-parallel
  groups loses its name in /dev/shm as soon as every process that shares it has mapped it. It ends with the last of
  them, however that ends.
Why: vLLM leaves the names to the last moments of its processes, which one that is killed does not have. The group's
  memory, 8 MiB a rank, stayed behind at every stop; under Ray, which kills actors and their children alike, so did the
  queues, some hundred MiB a rank.
Applied: in each rank, by worker/worker.py; in each engine core, by owner.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM unlinks its shared memory in time itself.
"""

from pathlib import Path

from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

from vllm_dllm.patches.wrap import wrap


def _wait_until_ready(original, self):
    original(self)  # a reader maps the memory before it says that it is there
    if self._is_writer and self.buffer is not None:
        self.buffer.shared_memory.unlink()
        self.buffer.is_creator = False  # who would unlink it again


def _init(original, self, communicator):
    original(self, communicator)  # ends in a barrier behind which all ranks have mapped each other's part
    Path(f"/dev/shm/{self.group_name}_{communicator.rank}").unlink()


def apply() -> None:
    """For a rank's process, or an engine core's, before it meets the others."""
    wrap(MessageQueue, "wait_until_ready", _wait_until_ready)
    wrap(_CPUSHMDistributed, "__init__", _init)
