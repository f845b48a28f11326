"""What probes measure with, over all tensor-parallel ranks.

Heads are spread over the ranks: whatever sums over heads is reduced.
"""

from types import ModuleType

import torch
from vllm.distributed import get_tensor_model_parallel_world_size, get_tp_group, tensor_model_parallel_all_reduce
from vllm.triton_utils import HAS_TRITON

from vllm_dllm.attention_maps import reference
from vllm_dllm.attention_maps.query_set import QuerySet

# what other packages may use
__all__ = ["as_on_first_rank", "column_mass", "ranks", "sum_over_ranks"]


def implementation(device: torch.device) -> ModuleType:
    """kernels.py where Triton can run it, else reference.py."""
    if device.type == "cpu" or not HAS_TRITON:
        return reference
    from vllm_dllm.attention_maps import kernels

    return kernels


def column_mass(attention: ModuleType, queries, weights, keys, scale: float, of: QuerySet) -> torch.Tensor:
    """`attention_mass` (reference.py) over the heads of all ranks: float32 [requests, longest canvas]."""
    return sum_over_ranks(attention.attention_mass(queries, weights, keys, scale, of))


def ranks() -> int:
    """Tensor-parallel ranks, each with its own heads."""
    return get_tensor_model_parallel_world_size()


def as_on_first_rank(values: torch.Tensor) -> torch.Tensor:
    """The first rank's numbers, for decisions in which all ranks must agree to the last bit: an all-reduce adds in an
    order that may differ between ranks (vLLM's in shared memory does, from three ranks on)."""
    return get_tp_group().broadcast(values) if ranks() > 1 else values


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    return tensor_model_parallel_all_reduce(values) if ranks() > 1 else values
