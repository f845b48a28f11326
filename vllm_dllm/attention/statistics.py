"""The signals of Elastic-Cache and d2Cache, in plain PyTorch: the reference of any kernel.

Heads are spread over the tensor-parallel ranks: whatever sums over heads is reduced, so that every rank
sees the same numbers and comes to the same decision.
"""

import torch
from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_reduce


def attention_weights(queries: torch.Tensor, keys: torch.Tensor, scale: float) -> torch.Tensor:
    """softmax(q k^T scale) in float32: [heads, rows, canvas].

    queries [rows, heads, head size], keys [canvas, kv heads, head size]; heads are a multiple of kv heads.
    """
    groups = queries.shape[1] // keys.shape[1]
    keys = keys.float().repeat_interleave(groups, 1) if groups > 1 else keys.float()
    return torch.einsum("rhd,chd->hrc", queries.float(), keys).mul_(scale).softmax(-1)


def drift(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """How alike two attention maps [heads, rows, canvas] are: a scalar tensor, 1 if they are the same.

    The cosine similarity over the heads for each row and key, averaged (Elastic-Cache, arXiv:2510.14973).
    """
    sums = _sum_over_ranks(torch.stack(((old * new).sum(0), (old * old).sum(0), (new * new).sum(0))))
    # torch.cosine_similarity's own guard against a norm of zero
    return (sums[0] / (sums[1].sqrt().clamp_min(1e-8) * sums[2].sqrt().clamp_min(1e-8))).mean()


def column_mass(weights: torch.Tensor) -> torch.Tensor:
    """How much attention each position gets: weights [heads, rows, canvas] summed over heads and rows, [canvas]."""
    return _sum_over_ranks(weights.sum((0, 1)))


def head_mean(weights: torch.Tensor) -> torch.Tensor:
    """The mean over all heads, [rows, canvas]."""
    return _sum_over_ranks(weights.sum(0)) / (weights.shape[0] * get_tensor_model_parallel_world_size())


def rollout_importance(maps: list[torch.Tensor], queries: torch.Tensor, length: int) -> torch.Tensor:
    """Column sums of the attention rollout, float32 [length] (d2Cache, arXiv:2509.23094).

    `maps` has each layer's mean over heads [rows, length] for the canvas positions `queries`; the rows of
    all other positions count as identity. The rollout is the product of the layers' maps, each plus
    identity and normalised, the last layer leftmost. Only its column sums are needed, so a vector goes
    through the layers from the last to the first and no [length, length] matrix is made.
    """
    importance = torch.ones(length, device=queries.device)
    for weights in reversed(maps):
        rows = importance[queries] / (weights.sum(-1) + 1)
        importance = importance.index_copy(0, queries, rows) + rows @ weights
    return importance


def _sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    return tensor_model_parallel_all_reduce(values) if get_tensor_model_parallel_world_size() > 1 else values
