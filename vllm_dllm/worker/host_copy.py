"""What a step computed goes from the device to the host at once."""

from collections.abc import Sequence

import numpy as np
import torch


class HostCopy:
    """Tensors of one device, as bytes in one tensor there, and copied from there to the host in one piece.

    The copy starts at once, into pinned memory, and nobody waits for it but `arrays`.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]):
        # the widest first, so that each is aligned to its own width
        self.order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
        self.like = [(t.shape, t.dtype, t.nbytes) for t in tensors]
        parts = [tensors[i].contiguous().view(-1).view(torch.uint8) for i in self.order]
        self.host = parts[0] if len(parts) == 1 else torch.cat(parts)
        self.done: torch.Event | None = None
        if not self.host.is_cpu:
            packed = self.host
            self.host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
            self.host.copy_(packed, non_blocking=True)
            self.done = torch.Event(packed.device)
            self.done.record()

    def arrays(self) -> list[np.ndarray]:
        """The tensors on the host, in the order in which they were given, once they are there."""
        if self.done is not None:
            self.done.synchronize()
        found: list[np.ndarray] = [np.empty(0)] * len(self.like)
        start = 0
        for i in self.order:
            shape, dtype, size = self.like[i]
            stop = start + size
            found[i] = self.host[start:stop].view(dtype).view(shape).numpy()
            start = stop
        return found
