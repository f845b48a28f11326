"""The signals against a dense statement of each: softmax over a dense canvas, the rollout as a product of matrices."""

import numpy as np
import pytest
import torch
from paged import LAYOUTS, Case

from vllm_dllm.attention_maps import reference, statistics
from vllm_dllm.attention_maps.query_set import QuerySet
from vllm_dllm.probes.drift_worker import similarity
from vllm_dllm.probes.rollout_worker import rollout_importance


def dense_weights(case: Case) -> list[torch.Tensor]:
    """Each request's softmax(q k^T scale) in float64: [heads, rows, canvas]."""
    maps = []
    for i, keys in enumerate(case.dense):
        queries = case.queries[case.rows.starts[i] : case.rows.starts[i + 1]].double()
        group = queries.shape[1] // keys.shape[1]
        scores = [queries[:, head] @ keys[:, head // group].double().T for head in range(queries.shape[1])]
        maps.append(torch.softmax(torch.stack(scores) * case.scale, -1))
    return maps


@pytest.fixture(autouse=True)
def one_rank(monkeypatch):
    """What vLLM says where tensor parallelism is off; asking it needs an engine."""
    monkeypatch.setattr(statistics, "get_tensor_model_parallel_world_size", lambda: 1)


CASES = [
    {"page_size": 16},
    {"page_size": 128, "dtype": torch.bfloat16},
    {"page_size": 64, "heads": 7, "kv_heads": 1, "size": 80},
    {"heads": 4, "kv_heads": 4, "size": 96, "dtype": torch.float16},
]


@pytest.mark.parametrize("arguments", CASES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_and_mass(layout, arguments):
    case = Case([70, 129, 16, 33], [3, 40, 16, 0], layout=layout, **arguments)
    maps = reference.attention_weights(case.queries, case.keys, case.scale, case.rows)
    mass = reference.attention_mass(case.queries, case.weights, case.keys, case.scale, case.rows)
    for i, expected in enumerate(dense_weights(case)):
        own, length = slice(*case.rows.starts[i : i + 2]), expected.shape[-1]
        torch.testing.assert_close(maps[:, own, :length], expected.float(), rtol=1e-4, atol=1e-6)
        assert not maps[:, own, length:].any() and not mass[i, length:].any()
        summed = torch.einsum("r,hrc->c", case.weights[own].double(), expected)
        torch.testing.assert_close(mass[i, :length], summed.float(), rtol=1e-4, atol=1e-6)


def test_parts_add_up_to_the_whole(monkeypatch):
    case = Case([70, 129], [70, 40])
    whole = reference.attention_mass(case.queries, case.weights, case.keys, case.scale, case.rows)
    monkeypatch.setattr(reference, "CHUNK", 4 * 129 * 7)  # seven rows
    parts = reference.attention_mass(case.queries, case.weights, case.keys, case.scale, case.rows)
    torch.testing.assert_close(parts, whole)


def test_similarity():
    old, new = (Case([70, 33], [3, 2], heads=4) for _ in range(2))
    new.queries = old.queries + old.random(5, 4, 32)
    of = [reference.attention_weights(c.queries, c.keys, c.scale, c.rows) for c in (old, new)]
    found = similarity(*of, old.rows)
    pairs = zip(dense_weights(old), dense_weights(new), strict=True)
    expected = [torch.cosine_similarity(a, b, dim=0).mean() for a, b in pairs]
    torch.testing.assert_close(found, torch.stack(expected).float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(similarity(of[0], of[0], old.rows), torch.ones(2))


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_rollout(kv_heads):
    """Column sums of the product of [canvas, canvas] maps; the rows of uncomputed positions count as identity."""
    lengths, counts = [70, 129, 20], [70, 12, 1]
    layers = [Case(lengths, counts, kv_heads=kv_heads, page_size=size) for size in (16, 32, 64)]
    rng = np.random.default_rng(0)
    computed = [np.sort(rng.permutation(n)[:count]) for n, count in zip(lengths, counts, strict=True)]
    for seed, layer in enumerate(layers):
        layer.queries += torch.randn(layer.queries.shape, generator=torch.Generator().manual_seed(seed))
    places = torch.from_numpy(np.concatenate([max(lengths) * i + at for i, at in enumerate(computed)]))
    last_first = [(layer.queries, layer.keys, layer.scale) for layer in reversed(layers)]
    # pages differ between these layers, so each reads its own block table
    found = rollout_importance(_Tables(reversed(layers)), last_first, places, layers[0].rows)
    maps = [dense_weights(layer) for layer in layers]
    for i, length in enumerate(lengths):
        product = torch.eye(length, dtype=torch.float64)
        for layer in maps:
            step = torch.eye(length, dtype=torch.float64)
            step[computed[i]] = layer[i].mean(0)
            step += torch.eye(length, dtype=torch.float64)
            product = step / step.sum(-1, keepdim=True) @ product
        torch.testing.assert_close(found[i, :length], product.sum(0).float(), rtol=1e-5, atol=1e-6)


class _Tables:
    def __init__(self, layers):
        self.rows = iter([layer.rows for layer in layers])

    def attention_mass(self, queries, weights, keys, scale, rows: QuerySet):
        return reference.attention_mass(queries, weights, keys, scale, next(self.rows))
