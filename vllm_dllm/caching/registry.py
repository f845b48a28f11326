"""Every caching policy by name: ours, and those that other packages register."""

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.caching.block import BlockCache
from vllm_dllm.caching.d2 import D2
from vllm_dllm.caching.d3 import D3
from vllm_dllm.caching.dkv_decode import DKVDecode
from vllm_dllm.caching.dkv_greedy import DKVGreedy
from vllm_dllm.caching.dkv_pd import DKVPD
from vllm_dllm.caching.dkv_prefill import DKVPrefill
from vllm_dllm.caching.dual import Dual
from vllm_dllm.caching.elastic import Elastic
from vllm_dllm.caching.entropy import Entropy
from vllm_dllm.caching.none import NoCache
from vllm_dllm.caching.pages import FIRST, RESET
from vllm_dllm.caching.prefix import Prefix
from vllm_dllm.plugins import load

GROUP = "vllm_dllm.cache_policies"  # the entry point group of other packages' policies
OURS = (NoCache, Prefix, Dual, DKVDecode, DKVGreedy, DKVPrefill, DKVPD, Entropy, Elastic, D2, D3, BlockCache)

# Kept apart from the package's __init__, which such a package imports: it may be imported before us.
POLICIES: dict[str, type[CachePolicy]] = load(
    GROUP, CachePolicy, {policy.name: policy for policy in OURS}, lambda policy: policy.name
)
# those for models in which every position sees all others
FULL = {name: policy for name, policy in POLICIES.items() if "full" in policy.attention}
# why pages are marked stale
REASONS = tuple(dict.fromkeys((FIRST, RESET, *(r for policy in POLICIES.values() for r in policy.reasons))))
