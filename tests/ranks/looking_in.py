"""What the tests add to the ranks' workers."""

import gc

import torch
from communication import CommunicationCounter

from vllm_dllm.probes import drift_worker


class LookingIn(CommunicationCounter):
    """Methods that vLLM adds to its worker (`worker_extension_cls`), called by `LLM.collective_rpc`."""

    def threads(self) -> int:
        return torch.get_num_threads()

    def collects(self) -> bool:
        return gc.isenabled()

    def disagree(self) -> None:
        """From now on the second rank sees the attention of all tracked tokens drift."""
        if self.rank == 1:
            similarity = drift_worker.similarity
            drift_worker.similarity = lambda *maps: similarity(*maps) - 2
