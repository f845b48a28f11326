"""Reading keys back from vLLM's KV pages."""

import torch
from torch import nn

CPU_TILES = {"vec": 32, "vec16": 16}  # tokens in a tile of vLLM's CPU kernels, by instruction set


def read_keys(attention: nn.Module, pages: torch.Tensor, length: int) -> torch.Tensor:
    """The keys of one request's canvas in one layer: [length, kv heads, head size].

    `attention` is vLLM's `Attention` layer, `pages` the request's page numbers (int64). vLLM binds a
    cache of [pages, kv heads, tokens, key and value] to every layer. Its CPU kernels use half of a page
    for keys, in tiles [head size, tokens of the tile]:

        GPU   | k0 v0 |   CPU   | k0 k1 .. k31 of dimension 0 |
              | k1 v1 |         | k0 k1 .. k31 of dimension 1 |
              |  ...  |         |  ...   then all values      |
    """
    cache = attention.kv_cache[pages]
    count, heads, page_size, width = cache.shape
    if cache.device.type == "cpu":
        tile = CPU_TILES[attention.isa]
        keys = cache.reshape(count, heads, -1)[:, :, : page_size * width // 2]
        keys = keys.view(count, heads, page_size // tile, width // 2, tile).transpose(3, 4)
        keys = keys.reshape(count, heads, page_size, width // 2)
    else:
        keys = cache[..., : width // 2]
    return keys.transpose(1, 2).reshape(count * page_size, heads, width // 2)[:length]
