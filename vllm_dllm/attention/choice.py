"""`--attention-backend CUSTOM` means the backend of this package, where another package has not put its own there."""

import importlib.metadata
import importlib.util
import os

from vllm.config import VllmConfig
from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

from vllm_dllm.options import SettingError

CUSTOM = AttentionBackendEnum.CUSTOM
PATH = "vllm_dllm.attention.backend.SplitKBackend"
XFORMERS, BELOW = (0, 0, 35), (0, 0, 36)  # later ones take their kernels from a package that is not stable
HEAD_SIZES = (16, 32, 64, 128, 256)
PAGE = 16  # tokens: a page must be a multiple of them
INTERPRETER = {"TRITON_INTERPRET": "1", "XFORMERS_ENABLE_TRITON": "1"}


def register() -> bool:
    """Whether CUSTOM is ours; in every process that asks vLLM for it this must have been called."""
    if not CUSTOM.is_overridden():
        register_backend(CUSTOM, PATH)
    return CUSTOM.get_path() == PATH


def check(config: VllmConfig) -> None:
    """Raise SettingError where CUSTOM is asked for and cannot be had, which an engine would say late or not at all."""
    if config.attention_config.backend != CUSTOM or not register():
        return
    if reason := why_not(config):
        raise SettingError(f"attention_backend=CUSTOM is not allowed here: {reason}")


def why_not(config: VllmConfig) -> str | None:
    """A sentence's end: why xformers' kernels cannot serve this model on this machine; None if they can."""
    model, cache = config.model_config, config.cache_config
    size = model.get_head_size()
    if size not in HEAD_SIZES:
        return f"the model's heads have {size} numbers, and they must have {', '.join(map(str, HEAD_SIZES))}"
    if cache.cache_dtype not in ("auto", "float16", "bfloat16"):
        return f"kv_cache_dtype={cache.cache_dtype!r} must be 'auto'"
    if cache.block_size % PAGE:
        return f"block_size={cache.block_size} must be a multiple of {PAGE}"
    return missing()


def missing() -> str | None:
    """What the machine lacks."""
    try:
        found = importlib.metadata.version("xformers")
    except importlib.metadata.PackageNotFoundError:
        return "it needs xformers (pip install 'vllm-dllm[xformers]')"
    numbers = tuple(int(part) for part in found.split("+")[0].split(".")[:3] if part.isdigit())
    if not XFORMERS <= numbers < BELOW:
        return f"xformers {found} must be 0.0.35 (pip install 'vllm-dllm[xformers]')"
    if importlib.util.find_spec("triton") is None:
        return "xformers' kernels need Triton"
    import triton.language as tl

    if not hasattr(tl, "make_block_ptr"):
        return "xformers' kernels need a Triton with block pointers, up to 3.8"
    if current_platform.is_cpu():
        if lacking := [f"{name}={value}" for name, value in INTERPRETER.items() if os.environ.get(name) != value]:
            return f"it needs a GPU; to try it in Triton's interpreter, very slowly, set {' and '.join(lacking)}"
        return None
    if not current_platform.is_cuda():
        return "it needs an NVIDIA GPU"
    if not current_platform.has_device_capability(80):
        return "it needs a GPU of compute capability 8.0 or more"
    return None
