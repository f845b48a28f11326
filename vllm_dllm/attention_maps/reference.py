"""Attention over paged keys in plain PyTorch: what runs on CPU, and what the kernels are held to."""

from collections.abc import Iterator

import torch

from vllm_dllm.attention_maps.query_set import QuerySet

CHUNK = 1 << 24  # attention weights that are there at one time, in numbers


def attention_mass(
    queries: torch.Tensor, weights: torch.Tensor, keys: torch.Tensor, scale: float, of: QuerySet
) -> torch.Tensor:
    """Each canvas position's attention, summed over heads and weighted rows: float32 [requests, longest canvas].

    sum over heads and rows n of weights[n] * softmax(q[n] k^T scale). `queries` are [N, heads, head size],
    `weights` float32 [N], `keys` as `paged_keys` gives them; heads are a multiple of kv heads. Zero behind
    a canvas.
    """
    mass = queries.new_zeros((len(of), of.longest), dtype=torch.float32)
    for request, start, stop, probabilities in _parts(queries, keys, scale, of):
        mass[request, : probabilities.shape[-1]] += (weights[start:stop] @ probabilities).sum(0)
    return mass


def attention_weights(queries: torch.Tensor, keys: torch.Tensor, scale: float, of: QuerySet) -> torch.Tensor:
    """softmax(q k^T scale) of each row: float32 [heads, N, longest canvas]. For a few rows. Zero behind a canvas."""
    result = queries.new_zeros((queries.shape[1], len(queries), of.longest), dtype=torch.float32)
    for _, start, stop, probabilities in _parts(queries, keys, scale, of):
        result[:, start:stop, : probabilities.shape[-1]] = probabilities
    return result


def _parts(
    queries: torch.Tensor, keys: torch.Tensor, scale: float, of: QuerySet
) -> Iterator[tuple[int, int, int, torch.Tensor]]:
    """(request, first row, row after the last, their attention weights [heads, rows, canvas]), part by part."""
    kv_heads, page_size, size = keys.shape[1], of.page_size, queries.shape[-1]
    heads = queries.shape[1]
    queries = (queries.float() * scale).view(-1, kv_heads, heads // kv_heads, size).permute(1, 2, 0, 3)
    for request, (pages, length) in enumerate(zip(of.pages, of.lengths, strict=True)):
        # [kv heads, head size, canvas]; indexed before it is permuted, so that whole pages are copied
        canvas = keys[pages].reshape(-1, kv_heads, page_size, size).permute(1, 3, 0, 2)
        canvas = canvas.reshape(kv_heads, size, -1)[:, :, :length].float()
        step = max(1, CHUNK // (heads * length))
        for start in range(of.starts[request], of.starts[request + 1], step):
            stop = min(start + step, of.starts[request + 1])
            part = queries[:, :, start:stop].reshape(kv_heads, -1, size)
            yield request, start, stop, torch.bmm(part, canvas).softmax(-1).view(heads, stop - start, length)
