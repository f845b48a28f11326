"""The Triton kernels against the reference. Run by test_kernels.py: on a GPU, or else in Triton's interpreter."""

import pytest
import torch
from paged import LAYOUTS, Case

from vllm_dllm.attention_maps import kernels, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ATOL = {torch.float32: 2e-6, torch.bfloat16: 2e-5, torch.float16: 2e-5}


def check(case: Case, rtol: float = 1e-5):
    """Both functions of kernels.py give what reference.py gives."""
    case = case.to(DEVICE)
    queries, weights, keys, scale, rows = case.queries, case.weights, case.keys, case.scale, case.rows
    atol = ATOL[keys.dtype]
    mass = kernels.attention_mass(queries, weights, keys, scale, rows)
    expected = reference.attention_mass(queries, weights, keys, scale, rows)
    torch.testing.assert_close(mass, expected, rtol=rtol, atol=atol * len(queries))
    maps = kernels.attention_weights(queries, keys, scale, rows)
    torch.testing.assert_close(maps, reference.attention_weights(queries, keys, scale, rows), rtol=rtol, atol=atol)


@pytest.mark.parametrize("page_size", [16, 32, 64, 128])
def test_pages_of_every_size(page_size):
    check(Case([70, 129], [3, 17], heads=2, kv_heads=1, page_size=page_size))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_of_every_layout(layout):
    check(Case([70, 33], [9, 2], layout=layout))


@pytest.mark.parametrize("size", [16, 48, 64, 80, 96, 128])
def test_head_sizes(size):
    check(Case([50, 21], [4, 18], heads=2, size=size))


@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (4, 4), (7, 1), (6, 2)])
def test_groups_of_heads(heads, kv_heads):
    check(Case([40, 90], [5, 2], heads=heads, kv_heads=kv_heads, size=16))


@pytest.mark.parametrize("dtype", ATOL, ids=str)
def test_dtypes(dtype):
    check(Case([75, 40], [7, 40], heads=2, dtype=dtype, size=64))


def test_a_full_pass_beside_single_rows():
    check(Case([150, 64, 1], [150, 1, 1], heads=2, size=16))


def test_a_request_without_rows():
    check(Case([33, 40, 20], [2, 0, 3], size=16))


def test_scores_far_apart():
    """The largest score is far from zero, so that exp of a score alone would be out of range."""
    case = Case([90], [6], size=16)
    case.queries *= 60
    check(case, rtol=1e-4)  # float32 has scores of some hundreds to some 1e-5


def test_queries_cut_out_of_a_wider_tensor():
    case = Case([60], [7])
    wide = torch.full((7, 6, 32), torch.nan)
    wide[:, :4] = case.queries
    case.queries = wide[:, :4]
    check(case)
