"""vLLM's CPU kernels for norms, against the plain statements that vLLM would take."""

import pytest
import torch
from vllm import ir
from vllm.platforms import current_platform

from vllm_dllm.models.cpu_norms import NAME, register

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="for CPUs")
ERRORS = {torch.float32: 1e-5, torch.bfloat16: 4e-2}  # of numbers around one


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    """As the plugin and vLLM do in an engine's process."""
    register()
    current_platform.import_kernels()


@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize("shape", [(1, 128), (37, 128), (300, 1024)])
def test_as_the_plain_statement(shape, dtype):
    random = torch.Generator().manual_seed(sum(shape))
    x, residual = (torch.randn(shape, generator=random).to(dtype) for _ in range(2))
    weight = torch.randn(shape[1], generator=random).to(dtype)
    one, two = ir.ops.rms_norm.impls, ir.ops.fused_add_rms_norm.impls
    assert one[NAME].supports_args(x, weight, 1e-5) and two[NAME].supports_args(x, residual, weight, 1e-5)
    near = {"rtol": ERRORS[dtype], "atol": ERRORS[dtype]}
    torch.testing.assert_close(one[NAME].impl_fn(x, weight, 1e-5), one["native"].impl_fn(x, weight, 1e-5), **near)
    wanted = two["native"].impl_fn(x, residual, weight, 1e-5)
    got = two[NAME].impl_fn(x.clone(), residual.clone(), weight, 1e-5)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, **near)


def test_rows_that_the_kernels_refuse_are_left_to_vllm():
    x = torch.ones(3, 24)
    supports = ir.ops.rms_norm.impls[NAME].supports_args
    assert not supports(x, torch.ones(24), 1e-5)  # no multiple of 16
    assert not supports(torch.ones(32, 3).t(), torch.ones(32), 1e-5)
    assert not supports(torch.ones(3, 32), torch.ones(32, dtype=torch.bfloat16), 1e-5)
