"""The signals of Elastic-Cache and d2Cache, computed straight from vLLM's paged keys.

Heads are spread over the tensor-parallel ranks: whatever sums over heads is reduced.
"""

from collections.abc import Iterable
from types import ModuleType

import torch
from vllm.distributed import get_tensor_model_parallel_world_size, get_tp_group, tensor_model_parallel_all_reduce
from vllm.triton_utils import HAS_TRITON

from vllm_dllm.attention_maps import reference
from vllm_dllm.attention_maps.rows import Rows


def implementation(device: torch.device) -> ModuleType:
    """kernels.py where Triton can run it, else reference.py."""
    if device.type == "cpu" or not HAS_TRITON:
        return reference
    from vllm_dllm.attention_maps import kernels

    return kernels


def column_mass(attention: ModuleType, queries, weights, keys, scale: float, rows: Rows) -> torch.Tensor:
    """`attention_mass` (reference.py) over the heads of all ranks: float32 [requests, longest canvas]."""
    return _sum_over_ranks(attention.attention_mass(queries, weights, keys, scale, rows))


def similarity(old: torch.Tensor, new: torch.Tensor, rows: Rows) -> torch.Tensor:
    """How alike two attention maps [heads, N, longest canvas] are: float32 [requests], 1 where they are the same.

    The cosine similarity over the heads for each row and key, averaged (Elastic-Cache, arXiv:2510.14973).
    """
    sums = _sum_over_ranks(torch.stack(((old * new).sum(0), (old * old).sum(0), (new * new).sum(0))))
    # torch.cosine_similarity's own guard against a norm of zero
    cosines = sums[0] / (sums[1].sqrt().clamp_min(1e-8) * sums[2].sqrt().clamp_min(1e-8))
    return rows.mean(cosines.sum(-1))


def rollout_importance(
    attention: ModuleType,
    layers: Iterable[tuple[torch.Tensor, torch.Tensor, float]],
    positions: torch.Tensor,
    rows: Rows,
) -> torch.Tensor:
    """Column sums of the attention rollout, float32 [requests, longest canvas] (d2Cache, arXiv:2509.23094).

    `layers` are each layer's (queries, keys, scale), the last layer first; `positions` [N] are the rows'
    places in the flattened result. All other positions' rows count as identity.

    The rollout is the product of the layers' maps, the last layer leftmost; a layer's map A is the mean over
    heads plus identity, its rows divided by their sum, which is 2. Only the column sums are needed, so a
    vector v goes through the layers, v A, which is `attention_mass` with v as weights: no map is made.
    """
    importance = torch.ones((len(rows), rows.longest), device=positions.device)
    flat = importance.view(-1)
    for queries, keys, scale in layers:
        share = flat.index_select(0, positions) / 2
        heads = queries.shape[1] * get_tensor_model_parallel_world_size()
        flat.index_copy_(0, positions, share)
        importance += column_mass(attention, queries, share / heads, keys, scale, rows)
    return importance


def as_on_first_rank(values: torch.Tensor) -> torch.Tensor:
    """The first rank's numbers, for decisions in which all ranks must agree to the last bit: an all-reduce adds in an
    order that may differ between ranks (vLLM's in shared memory does, from three ranks on)."""
    return get_tp_group().broadcast(values) if get_tensor_model_parallel_world_size() > 1 else values


def _sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    return tensor_model_parallel_all_reduce(values) if get_tensor_model_parallel_world_size() > 1 else values
