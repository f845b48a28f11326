"""Float32 RoPE in place, against LLaDA's module on the CPU. Run by test_step_kernels.py, as interpreted_readout.py is."""

import pytest
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding import get_rope

from vllm_dllm.models.llada.model import FullPrecisionRope
from vllm_dllm.models.llada.rope_kernel import rotate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def check(size: int, heads: int, kv_heads: int, dtype: torch.dtype, lines: int = 9, share: float = 1.0):
    with set_current_vllm_config(VllmConfig()):
        parameters = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": share}
        reference = FullPrecisionRope(get_rope(size, 3000, True, parameters, torch.float32))
    assert reference.rope.cos_sin_cache.dtype == torch.float32
    if DEVICE != "cpu":  # where there is a GPU, vLLM's own takes no tensors of the CPU
        reference.rope.forward = reference.rope.forward_native
    generator = torch.Generator().manual_seed(size)
    widths = [heads * size, kv_heads * size, kv_heads * size]
    qkv = torch.randn(lines, sum(widths), generator=generator).to(dtype)
    positions = torch.randint(0, 3000, (lines,), generator=generator)
    q, k, v = qkv.split(widths, -1)
    want = torch.cat((*reference(positions, q.float(), k.float()), v), -1)
    if dtype == torch.bfloat16 and DEVICE == "cpu":  # the interpreter cuts float32 off, where a GPU rounds it
        want[:, : -widths[2]] = (want[:, : -widths[2]].view(torch.int32) & -(2**16)).view(torch.float32)
    got = qkv.to(DEVICE)
    q, k, _ = got.split(widths, -1)
    rotate(positions.to(DEVICE), q, k, reference.rope.cos_sin_cache.to(DEVICE), size)
    ulp = torch.finfo(dtype).eps if DEVICE != "cpu" else 0  # a fused multiply-add may round the other way
    torch.testing.assert_close(got.cpu(), want.to(dtype), rtol=ulp, atol=4e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size, heads, kv_heads", [(16, 1, 1), (80, 5, 5), (128, 8, 2)])
def test_query_and_key_are_rotated_where_they_are(size, heads, kv_heads, dtype):
    check(size, heads, kv_heads, dtype)


def test_a_part_of_each_head():
    check(64, 3, 2, torch.float32, share=0.5)


def test_one_position_and_none():
    check(32, 4, 4, torch.bfloat16, lines=1)
    nothing = torch.empty(0, 64, device=DEVICE)
    rotate(torch.empty(0, dtype=torch.int64, device=DEVICE), nothing, nothing, torch.ones(9, 32, device=DEVICE), 32)
