"""Every caching policy by name: ours, and those that other packages register."""

from importlib.metadata import entry_points

from vllm_dllm.caching.base import CachePolicy
from vllm_dllm.caching.d2 import D2
from vllm_dllm.caching.dkv_decode import DKVDecode
from vllm_dllm.caching.dkv_greedy import DKVGreedy
from vllm_dllm.caching.dkv_pd import DKVPD
from vllm_dllm.caching.dkv_prefill import DKVPrefill
from vllm_dllm.caching.dual import Dual
from vllm_dllm.caching.elastic import Elastic
from vllm_dllm.caching.entropy import Entropy
from vllm_dllm.caching.none import NoCache
from vllm_dllm.caching.prefix import Prefix

GROUP = "vllm_dllm.cache_policies"  # the entry point group of other packages' policies
OURS = (NoCache, Prefix, Dual, DKVDecode, DKVGreedy, DKVPrefill, DKVPD, Entropy, Elastic, D2)


def load() -> dict[str, type[CachePolicy]]:
    """The policies by name.

    Raises TypeError for an entry point that is no CachePolicy, and ValueError for one whose name is taken
    or differs from its class's.
    """
    policies: dict[str, type[CachePolicy]] = {policy.name: policy for policy in OURS}
    for point in entry_points(group=GROUP):
        policy = point.load()
        where = f"entry point {point.name} = {point.value} of {GROUP}"
        if not (isinstance(policy, type) and issubclass(policy, CachePolicy)):
            raise TypeError(f"{where} is not a subclass of CachePolicy")
        if policy.name != point.name:
            raise ValueError(f"{where} has another name: {policy.name}")
        if policies.setdefault(policy.name, policy) is not policy:
            raise ValueError(f"{where} has a name that is taken: choose another one")
    return policies


# Kept apart from the package's __init__, which such a package imports: it may be imported before us.
POLICIES = load()
