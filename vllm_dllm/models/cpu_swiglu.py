"""SwiGLU's activation on CPU, where vLLM states it in two operators: the second one in place of the first one's result.

vLLM's CPU build has a kernel for both at once, which takes its exponentials one by one and is two to three times slower.
"""

import torch
import torch.nn.functional as F
from torch import nn
from vllm.model_executor.models.llama import LlamaMLP


class SwiGLU(nn.Module):
    """`silu(gate) * up` [..., size] of `x` [..., 2 * size], gate before up: to the bit what vLLM's `SiluAndMul` gives."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return F.silu(gate).mul_(up)


def use(model: nn.Module) -> None:
    """In all of the model's MLPs, those beside experts too."""
    for module in model.modules():
        if isinstance(module, LlamaMLP):
            module.act_fn = SwiGLU()
