"""Keys written into pages by vLLM's own code, and read back."""

from types import SimpleNamespace

import pytest
import torch
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl

from vllm_dllm.attention_maps.keys import key_scale, paged_keys, why_unreadable

PAGES, HEADS = 3, 2


def layer(isa: str, page_size: int, dtype: torch.dtype, size: int = 64, cache_dtype: str = "auto") -> SimpleNamespace:
    """What vLLM's attention layer has of interest, with its real CPU backend."""
    stored = dtype if cache_dtype == "auto" else torch.uint8
    impl = object.__new__(CPUAttentionBackendImpl)  # its __init__ wants an engine's configuration
    impl.attn_type, impl.kv_cache_dtype = AttentionType.DECODER, cache_dtype
    return SimpleNamespace(
        isa=isa,
        kv_cache=torch.zeros(PAGES, HEADS, page_size, 2 * size, dtype=stored),
        kv_cache_dtype=cache_dtype,
        _k_scale=torch.tensor(0.5),
        _k_scale_float=0.5,
        _v_scale_float=0.25,
        attn_backend=CPUAttentionBackend,
        impl=impl,
    )


WRITTEN = [
    ("vec", 32, torch.float32, 64, "auto"),
    ("vec", 64, torch.bfloat16, 64, "auto"),
    ("vec", 128, torch.float16, 96, "auto"),
    ("vec16", 32, torch.float32, 80, "auto"),
    ("vec16", 64, torch.bfloat16, 48, "auto"),
    ("amx", 64, torch.bfloat16, 64, "auto"),
    ("vec", 64, torch.bfloat16, 64, "fp8"),
]


@pytest.mark.parametrize("isa, page_size, dtype, size, cache_dtype", WRITTEN)
def test_keys_that_vllm_wrote(isa, page_size, dtype, size, cache_dtype):
    attention = layer(isa, page_size, dtype, size, cache_dtype)
    assert why_unreadable(attention, dtype) is None
    keys = torch.randint(-6, 7, (page_size + 5, HEADS, size)).to(dtype)
    slots = torch.cat((torch.arange(page_size) + 2 * page_size, torch.arange(5) + page_size))  # page 2, then page 1
    attention.impl.do_kv_cache_update(attention, keys, -keys, attention.kv_cache, slots)
    read = paged_keys(attention)[[2, 1]].reshape(2, HEADS, page_size, size).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(read[: len(keys)].float() * key_scale(attention), keys.float(), rtol=0, atol=0)


def test_a_layout_that_is_not_known_is_refused():
    attention = layer("vec", 64, torch.bfloat16)
    attention.impl.do_kv_cache_update = lambda _, key, value, cache, slots: cache[0].copy_(  # a token in each row
        torch.cat((key, value), -1).transpose(0, 1)
    )
    assert "keys of attention backend CPU_ATTN with kv_cache_dtype=auto" in why_unreadable(attention, torch.bfloat16)


def test_a_quantised_cache_that_is_not_known_is_refused():
    attention = layer("vec", 64, torch.bfloat16)
    attention.kv_cache, attention.kv_cache_dtype = attention.kv_cache.view(torch.uint8), "int8_per_token_head"
    assert "kv_cache_dtype=int8_per_token_head" in why_unreadable(attention, torch.bfloat16)


def test_scales_for_each_head_are_refused():
    attention = layer("vec", 64, torch.bfloat16, 64, "fp8")
    attention._k_scale = torch.ones(HEADS)
    assert "a scale for each head" in why_unreadable(attention, torch.bfloat16)
