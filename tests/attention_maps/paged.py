"""Random keys in pages, laid out as vLLM's backends do it, and queries of several requests."""

import numpy as np
import torch

from vllm_dllm.attention_maps.query_set import QuerySet

LAYOUTS = ("NHD", "HND", "CPU")  # the first two are FlashAttention's, Triton's and FlashInfer's


def page_out(keys: list[torch.Tensor], page_size: int, layout: str, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Dense keys [length, kv heads, head size] of each request into pages, in random order.

    A view [pages, kv heads, page size, head size] into a cache whose other numbers are NaN, and the block table.
    """
    heads, size = keys[0].shape[1:]
    counts = [-(-len(k) // page_size) for k in keys]
    number = sum(counts) + 2
    cache = torch.full((number * heads * page_size * 2 * size,), torch.nan, dtype=keys[0].dtype)
    if layout == "HND":
        view = cache.view(number, heads, page_size, 2 * size)[..., :size]
    elif layout == "NHD":
        view = cache.view(number, page_size, heads, 2 * size).transpose(1, 2)[..., :size]
    else:
        view = cache.view(number, heads, 2 * size, page_size)[:, :, :size].transpose(2, 3)
    order = iter(np.random.default_rng(seed).permutation(number))
    block_table = np.zeros((len(keys), max(counts)), np.int32)
    for line, k, count in zip(block_table, keys, counts, strict=True):
        line[:count] = [next(order) for _ in range(count)]
        for i, part in enumerate(k.split(page_size)):
            view[line[i], :, : len(part)] = part.transpose(0, 1)
    return view, block_table


class Case:
    """Requests of some canvas lengths with some query rows each: dense `keys` and `queries`, and the paged keys."""

    def __init__(self, lengths, counts, heads=4, kv_heads=2, size=32, page_size=32, layout="NHD", dtype=torch.float32):
        self.generator = torch.Generator().manual_seed(sum(lengths) + size + heads)
        self.scale = size**-0.5
        self.dense = [self.random(n, kv_heads, size).mul(2).to(dtype) for n in lengths]
        self.queries = self.random(sum(counts), heads, size).mul(2).to(dtype)
        self.weights = self.random(sum(counts)).abs()
        self.keys, block_table = page_out(self.dense, page_size, layout)
        self.rows = QuerySet(counts, np.asarray(lengths), block_table, page_size)

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def to(self, device: str) -> "Case":
        self.keys, self.queries, self.weights = self.keys.to(device), self.queries.to(device), self.weights.to(device)
        self.rows.device = device
        return self
