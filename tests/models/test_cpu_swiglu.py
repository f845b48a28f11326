"""The MLPs' activation on CPU: vLLM's own, to the bit, and in every MLP of a model."""

import pytest
import torch
from common import CHECKPOINTS
from loaded import Loaded
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.models.llama import LlamaMLP
from vllm.platforms import current_platform

from vllm_dllm.models.cpu_swiglu import SwiGLU

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="for CPUs")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(0, 768), (1, 768), (37, 24), (300, 5632)])
def test_as_vllms_own_to_the_bit(shape, dtype):
    x = (3 * torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))).to(dtype)
    before = x.clone()
    assert torch.equal(SwiGLU()(x), SiluAndMul.forward_native(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize("checkpoint", ["tiny-llada", "tiny-llada2"])  # the latter's experts have an MLP beside them
def test_every_mlp_has_it(world, checkpoint):
    model = Loaded(CHECKPOINTS / checkpoint).runner.model
    mlps = [module for module in model.modules() if isinstance(module, LlamaMLP)]
    assert len(mlps) == model.config.num_hidden_layers
    assert all(isinstance(mlp.act_fn, SwiGLU) for mlp in mlps)
