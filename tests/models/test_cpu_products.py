"""Which kernel a linear layer in bfloat16 is computed with on CPU."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from vllm.model_executor.layers import utils
from vllm.platforms import current_platform

from vllm_dllm.patches import cpu_products

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="for CPUs")


@pytest.mark.parametrize("rows", [3, 700])
def test_small_matrices_are_onednns(rows):
    cpu_products.apply()
    current_platform.import_kernels()
    layer = torch.nn.Linear(128, 384, bias=True, dtype=torch.bfloat16).requires_grad_(False)
    x = torch.randn(rows, 128, generator=torch.Generator().manual_seed(rows)).bfloat16()
    wanted = torch.nn.functional.linear(x.float(), layer.weight.float(), layer.bias.float())
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        got = utils.cpu_unquantized_gemm(layer, x, layer.weight, layer.bias)
    assert "_C::onednn_mm" in {event.key for event in seen.key_averages()}
    torch.testing.assert_close(got.float(), wanted, rtol=2e-2, atol=2e-2)


def test_the_others_stay_vllms():
    cpu_products.apply()
    amx = torch.cpu._is_amx_tile_supported()
    assert utils.check_cpu_sgl_kernel(384, 128, torch.int8) == amx
    assert utils.check_cpu_sgl_kernel(8, 128, torch.bfloat16) == amx
    assert not utils.check_cpu_sgl_kernel(384, 128, torch.bfloat16)
    assert not utils.check_cpu_sgl_kernel(384, 128, torch.float32)
