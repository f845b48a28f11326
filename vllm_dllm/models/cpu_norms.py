"""vLLM's own CPU kernels for the layers' norms, which vLLM takes on GPUs alone: one call in place of eight.

An implementation of vLLM's operators under a name of ours, chosen in `kernel_config.ir_op_priority`.
"""

import torch
from vllm.config import VllmConfig
from vllm.ir.ops.layernorm import fused_add_rms_norm as add_op
from vllm.ir.ops.layernorm import rms_norm as norm_op

NAME = "dllm_cpu"
LANES = 16  # numbers that a kernel takes at once: it refuses rows that are no multiple of them


def _same_type(x, weight, epsilon, variance_size=None) -> bool:
    return (
        variance_size is None
        and weight is not None
        and weight.dtype == x.dtype
        and x.shape[-1] % LANES == 0
        and x.is_contiguous()
    )


def _same_types(x, x_residual, weight, epsilon, variance_size=None) -> bool:
    return _same_type(x, weight, epsilon, variance_size) and x_residual.is_contiguous()


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> torch.Tensor:
    """Of `x` [..., size], as vLLM's plain statement of the operator."""
    out = torch.empty(x.shape, dtype=x.dtype)
    torch.ops._C.rms_norm(out, x, weight, epsilon)
    return out


def fused_add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of `x + x_residual` and the sum, in place of both."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def register() -> None:
    """Make them known to vLLM. May be called more than once."""
    if NAME not in norm_op.impls:
        norm_op.register_impl(NAME, supports_args=_same_type)(rms_norm)
        add_op.register_impl(NAME, supports_args=_same_types, inplace=True)(fused_add_rms_norm)


def choose(config: VllmConfig) -> None:
    """Use them, behind what the user has chosen."""
    priority = config.kernel_config.ir_op_priority
    for names in (priority.rms_norm, priority.fused_add_rms_norm):
        if NAME not in names:
            names.append(NAME)
