"""Which positions the next pass computes. One file for each policy; `POLICIES` lists them."""

from vllm_dllm.caching.base import CachePolicy, Plan
from vllm_dllm.caching.none import NoCache

POLICIES: dict[str, type[CachePolicy]] = {policy.name: policy for policy in (NoCache,)}

__all__ = ["POLICIES", "CachePolicy", "Plan"]
