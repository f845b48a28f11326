"""Where vLLM's KV pages keep a layer's keys.

vLLM 0.32 binds to every attention layer a cache of shape [pages, kv heads, page size, 2 head size], with
strides that depend on its KV cache layout. What is in it is up to the backend. For each page and head:

    FLASH_ATTN, TRITON_ATTN, FLASHINFER,     CPU_ATTN                   CPU_ATTN with AMX,
    FLEX_ATTENTION, CUSTOM (ours)            (vec, vec16)               16 tokens at a time
      token 0 | k v |                          dim. 0 | k0 k1 k2 .. |     dim. 0, 1 | k0 k0 k1 k1 .. |
      token 1 | k v |                          dim. 1 | k0 k1 k2 .. |     dim. 2, 3 | k0 k0 k1 k1 .. |
        ..                                       ..   then values           ..        then values
"""

import torch
from torch import nn

AMX_TOKENS = 16
FP8 = {"fp8": torch.float8_e4m3fn, "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}


def paged_keys(attention: nn.Module) -> torch.Tensor:
    """A view of one layer's keys in the cache: [pages, kv heads, page size, head size].

    `attention` is vLLM's `Attention` layer. With AMX two of the dimensions are cut in two:
    [.., page size / 16, 16, head size / 2, 2]. Keys of a quantised cache are to be multiplied by `key_scale`.
    """
    cache = attention.kv_cache
    if _is_quantised(attention):
        cache = cache.view(FP8[attention.kv_cache_dtype])
    pages, heads, page_size, width = cache.shape
    size = width // 2
    if cache.device.type != "cpu" or attention.attn_backend.get_name() != "CPU_ATTN":
        return cache[..., :size]
    keys = cache.flatten(2)[..., : page_size * size]
    if attention.isa == "amx":
        return keys.view(pages, heads, page_size // AMX_TOKENS, size // 2, AMX_TOKENS, 2).transpose(3, 4)
    return keys.view(pages, heads, size, page_size).transpose(2, 3)


def key_scale(attention: nn.Module) -> float:
    return attention._k_scale_float if _is_quantised(attention) else 1.0


def why_unreadable(attention: nn.Module, dtype: torch.dtype) -> str | None:
    """Why this backend's keys cannot be read, None if they can; asked at start. `dtype` is the model's.

    The backend writes a page, the first one, which vLLM gives to no request, and it is read back.
    """
    cache = attention.kv_cache
    if _is_quantised(attention) and attention._k_scale.numel() > 1:
        return "policies that look into the attention cannot read quantised keys with a scale for each head"
    _, heads, page_size, width = cache.shape
    # small whole numbers, which every dtype can hold
    numbers = torch.arange(page_size * heads * (width // 2), device=cache.device) % 17 - 8
    keys = numbers.view(page_size, heads, width // 2).to(dtype)
    slots = torch.arange(page_size, device=cache.device)
    try:
        attention.impl.do_kv_cache_update(attention, keys * key_scale(attention), keys + 1, cache, slots)
        read = paged_keys(attention)[:1].reshape(heads, page_size, width // 2).transpose(0, 1)
        why = "" if torch.equal(read.float(), keys.float()) else "another layout"
    except (AttributeError, KeyError, NotImplementedError, RuntimeError) as e:
        why = repr(e)
    if not why:
        return None
    return (
        f"policies that look into the attention cannot read the keys of attention backend "
        f"{attention.attn_backend.get_name()} with kv_cache_dtype={attention.kv_cache_dtype} ({why}); on a GPU they can with "
        "--attention-backend FLASH_ATTN, TRITON_ATTN, FLASHINFER, FLEX_ATTENTION or CUSTOM, and --kv-cache-dtype auto or fp8"
    )


def _is_quantised(attention: nn.Module) -> bool:
    return attention.kv_cache.dtype == torch.uint8
