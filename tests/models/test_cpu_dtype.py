"""On CPU, in which type a bfloat16 checkpoint is served: what the processor computes with, or what the user says."""

import pytest
import torch
from common import CHECKPOINTS
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import CpuArchEnum, current_platform

from vllm_dllm.patches.auto_dtype import has_bfloat16

MODERN = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}
OLD = {"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}


@pytest.mark.parametrize(
    ("architecture", "flags", "has"),
    [
        (CpuArchEnum.X86, MODERN, True),
        (CpuArchEnum.X86, {"amx_bf16": True}, True),
        (CpuArchEnum.X86, OLD, False),
        (CpuArchEnum.X86, {}, False),
        (CpuArchEnum.ARM, {"bf16": True}, True),
        (CpuArchEnum.ARM, {"bf16": False, "avx512_bf16": True}, False),
        (CpuArchEnum.POWERPC, {}, True),
    ],
)
def test_processors(architecture, flags, has):
    assert has_bfloat16(architecture, flags) is has


@pytest.mark.skipif(not current_platform.is_cpu(), reason="for CPUs")
@pytest.mark.parametrize(
    ("flags", "asked", "served"),
    [
        (OLD, "auto", torch.float32),
        (MODERN, "auto", torch.bfloat16),
        (OLD, "bfloat16", torch.bfloat16),
        (OLD, "float16", torch.float16),
        (MODERN, "float32", torch.float32),
    ],
)
@pytest.mark.parametrize("model", ["tiny-llada", "tiny-dream"])
def test_models(monkeypatch, model, flags, asked, served):
    """vLLM's own configuration, with another processor's flags."""
    monkeypatch.setattr(current_platform, "get_cpu_architecture", lambda: CpuArchEnum.X86)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    config = EngineArgs(model=str(CHECKPOINTS / model), dtype=asked).create_engine_config()
    assert config.model_config.dtype == served
    assert config.cache_config.cache_dtype == "auto"  # the model's
