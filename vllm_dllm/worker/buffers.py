"""A step's input arrays on the device: packed, copied in one go, and always at the same addresses for a shape."""

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from vllm.utils.torch_utils import PIN_MEMORY

from vllm_dllm.messages import Batch

ALIGNMENT = 256  # bytes: kernels load several elements at a time


class Shape(NamedTuple):
    """How large a step's arrays are."""

    tokens: int
    requests: int
    pages: int  # of a request, at most

    @classmethod
    def of(cls, batch: Batch) -> "Shape":
        return cls(len(batch.positions), len(batch.ends), batch.block_table.shape[1])


class Arrays(NamedTuple):
    """Parts of one buffer, as arrays of NumPy or tensors, in the order in which they lie there."""

    positions: Any  # [tokens] int64
    slots: Any  # [tokens] int64: where the keys and values go; -1: nowhere
    token_ids: Any  # [tokens] int32
    query_starts: Any  # [requests + 1] int32
    ends: Any  # [requests] int32
    block_table: Any  # [requests, pages] int32


KEPT = 64  # shapes whose views are kept: as many as there are graphs, and more
WIDE, NARROW = np.dtype(np.int64), np.dtype(np.int32)
TORCH = {WIDE: torch.int64, NARROW: torch.int32}


def _parts(shape: Shape) -> tuple[list[tuple[slice, np.dtype, tuple[int, ...]]], int]:
    """For each of `Arrays` its bytes, type and shape; and how many bytes there are in all."""
    tokens, requests, pages = shape
    wide = [(tokens,), (tokens,)]
    narrow = [(tokens,), (requests + 1,), (requests,), (requests, pages)]
    parts, start = [], 0
    for kind, dims in [(WIDE, dims) for dims in wide] + [(NARROW, dims) for dims in narrow]:
        stop = start + math.prod(dims) * kind.itemsize
        parts.append((slice(start, stop), kind, dims))
        start = -(-stop // ALIGNMENT) * ALIGNMENT
    return parts, start


def rounded(tokens: int) -> int:
    """A number of tokens that comes again from step to step, at most an eighth more than these, or 7.

    On a CPU oneDNN compiles a kernel for every number of rows, a millisecond for each of a layer's products.
    """
    step = 1 << max(3, (tokens - 1).bit_length() - 4)
    return -(-tokens // step) * step


class Views(NamedTuple):
    """The arrays of a shape."""

    size: int  # in bytes, of all of them
    device: Arrays
    hosts: list[Arrays]  # in the memory that the device's are filled from


def _views(device: torch.Tensor, hosts: list[torch.Tensor], shape: Shape) -> Views:
    parts, size = _parts(shape)
    return Views(
        size,
        Arrays(*(device[part].view(TORCH[kind]).view(dims) for part, kind, dims in parts)),
        [Arrays(*(host.numpy()[part].view(kind).reshape(dims) for part, kind, dims in parts)) for host in hosts],
    )


@dataclass
class Inputs:
    """A step's arrays, and of some what the host knows."""

    shape: Shape
    device: Arrays
    query_starts: torch.Tensor  # these two on the host
    ends: torch.Tensor
    longest_query: int
    longest_canvas: int


class StepBuffers:
    """Room for one step's arrays of at most `most`, on the device, and pinned memory to fill it from.

    Where an array lies follows from the shape alone, so a graph that was captured over the arrays of a shape finds there
    whatever a later step of the same shape was filled with. Each fill writes every element: none is left of a step before.

    Two pinned buffers take turns, and one is written again when its copy has ended, so that a step may be filled while
    those before it wait for the device. The device's own buffer is one: copies and kernels are on one stream, so a step's
    copy comes behind all that reads the last step's. On CPU the one buffer is filled in place, for a step is over then.
    """

    def __init__(self, most: Shape, page_size: int, device: torch.device):
        self.page_size = page_size
        _, size = _parts(most)
        self.device = torch.zeros(size, dtype=torch.uint8, device=device)
        self.on_cpu = device.type == "cpu"
        self.hosts = [self.device]
        if not self.on_cpu:
            self.hosts = [torch.zeros(size, dtype=torch.uint8, pin_memory=PIN_MEMORY) for _ in range(2)]
            self.copied = [torch.Event() for _ in self.hosts]
        self.turn = 0
        self.views = lru_cache(KEPT)(partial(_views, self.device, self.hosts))

    def fill(self, batch: Batch, padded: Shape | None = None, longest: tuple[int, int] | None = None) -> Inputs:
        """The batch's arrays, of their own size or `padded` to a larger one.

        Padding tokens are in no request and go into no slot; padding requests have no tokens and no canvas. `longest`: what
        the longest query and canvas are said to be, if not what they are.
        """
        own = Shape.of(batch)
        shape = padded or own
        views = self.views(shape)
        self.turn = (self.turn + 1) % len(self.hosts)
        if not self.on_cpu:
            self.copied[self.turn].synchronize()
        arrays = views.hosts[self.turn]
        self._write(batch, arrays, own.tokens, own.requests)
        if not self.on_cpu:
            self.device[: views.size].copy_(self.hosts[self.turn][: views.size], non_blocking=True)
            self.copied[self.turn].record()
        return Inputs(
            shape,
            views.device,
            torch.from_numpy(arrays.query_starts),
            torch.from_numpy(arrays.ends),
            *(longest or (int(np.diff(batch.query_starts).max()), int(batch.ends.max()))),
        )

    def _write(self, batch: Batch, to: Arrays, tokens: int, requests: int) -> None:
        page, place = np.divmod(batch.positions, self.page_size)
        of = np.repeat(np.arange(requests), np.diff(batch.query_starts))
        to.positions[:tokens] = batch.positions
        to.positions[tokens:] = 0
        to.slots[:tokens] = batch.block_table[of, page].astype(np.int64) * self.page_size + place
        to.slots[tokens:] = -1
        known = len(batch.token_ids)  # fewer than tokens where a probe widened the pass, which reads none from here
        to.token_ids[:known] = batch.token_ids
        to.token_ids[known:] = 0
        to.query_starts[: requests + 1] = batch.query_starts
        to.query_starts[requests + 1 :] = tokens
        to.ends[:requests] = batch.ends
        to.ends[requests:] = 0
        to.block_table[:] = 0
        to.block_table[:requests, : batch.block_table.shape[1]] = batch.block_table
