"""Which queries' attention is looked at."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d


class QuerySet:
    """N queries of R requests, one request's after the other's, each attending to its request's canvas.

    request       0           | 1     | 2
    query         0 1 2 ..  9 | 10 11 | 12 ..     N in all
    starts        0             10      12     N

    `counts` has each request's number of queries, `lengths` [R] how far its canvas exists, and `block_table`
    [R, most pages] its page numbers. Made once for all layers that look at the same queries' attention.
    """

    def __init__(
        self,
        counts: Sequence[int],
        lengths: np.ndarray,
        block_table: np.ndarray,
        page_size: int,
        device: torch.device | str = "cpu",
    ):
        self.starts = [0, *np.cumsum(counts).tolist()]
        self.lengths = lengths.tolist()
        self.block_table = block_table
        self.page_size = page_size
        self.device = device
        self.most = max(counts)
        self.longest = max(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def pages(self) -> list[torch.Tensor]:
        """Each request's page numbers."""
        counts = [-(-length // self.page_size) for length in self.lengths]
        return [self._to_device(line[:n], np.int64) for line, n in zip(self.block_table, counts, strict=True)]

    @cached_property
    def for_kernels(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`starts` [R + 1], `lengths` [R] and the block table [R, most pages] on the device, int32."""
        starts, lengths = np.asarray(self.starts), np.asarray(self.lengths)
        return tuple(self._to_device(array, np.int32) for array in (starts, lengths, self.block_table))

    def mean(self, sums: torch.Tensor) -> torch.Tensor:
        """Each request's mean over its queries and canvas, [R], of `sums` [N] over the canvas."""
        return self._shares @ sums

    @cached_property
    def _shares(self) -> torch.Tensor:
        shares = np.zeros((len(self), self.starts[-1]), np.float32)
        for line, start, stop, length in zip(shares, self.starts, self.starts[1:], self.lengths, strict=False):
            line[start:stop] = 1 / ((stop - start) * length)
        return self._to_device(shares, np.float32)

    def _to_device(self, array: np.ndarray, dtype) -> torch.Tensor:
        return async_tensor_h2d(np.ascontiguousarray(array, dtype), torch.device(self.device))
