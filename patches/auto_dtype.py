"""On a processor without bfloat16 a bfloat16 checkpoint is served in float32, unless the user says otherwise.

What: for our models on CPU, `--dtype auto` means float32 where the checkpoint has bfloat16 and the processor has no
  instructions for it. A line in the log says so. `--dtype bfloat16` is honoured.
Why: without them every bfloat16 product is put together from float32 ones, several times slower than float32 itself,
  and less exact. vLLM takes what the checkpoint has, and its hooks for a model's configuration come afterwards, when
  nobody knows any more whether the user had asked for it.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM looks at the processor.
"""

from collections.abc import Mapping

import torch
from vllm.config import model as vllm_model_config
from vllm.logger import init_logger
from vllm.platforms import CpuArchEnum, current_platform

from vllm_dllm.models import FAMILIES
from vllm_dllm.patches.wrap import wrap

logger = init_logger(f"vllm.{__name__}")

MODEL_TYPES = {family.config.model_type for family in FAMILIES}


def has_bfloat16(architecture: CpuArchEnum, flags: Mapping[str, bool]) -> bool:
    """Whether a processor computes with bfloat16 itself; `flags` are PyTorch's words for what it can do."""
    if architecture == CpuArchEnum.X86:
        return flags.get("avx512_bf16", False) or flags.get("amx_bf16", False)
    if architecture == CpuArchEnum.ARM:
        return flags.get("bf16", False)
    return True  # of others PyTorch tells nothing: vLLM's choice stays


def _resolve_auto_dtype(original, model_type, config_dtype, **kwargs):
    dtype = original(model_type, config_dtype, **kwargs)
    if model_type not in MODEL_TYPES or dtype != torch.bfloat16 or not current_platform.is_cpu():
        return dtype
    if has_bfloat16(current_platform.get_cpu_architecture(), torch.cpu.get_capabilities()):
        return dtype
    logger.info("float32 instead of the checkpoint's bfloat16, which this processor has not: --dtype bfloat16 takes it")
    return torch.float32


def apply() -> None:
    wrap(vllm_model_config, "_resolve_auto_dtype", _resolve_auto_dtype)
