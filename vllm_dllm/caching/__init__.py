"""Which positions the next pass computes. One file for each policy; `registry.POLICIES` lists them."""

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.caching.pages import PageLedger

__all__ = ["CachePolicy", "PageLedger"]
