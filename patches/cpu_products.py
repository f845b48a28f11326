"""On a CPU, products by small matrices are oneDNN's too.

What: for our models, a linear layer in bfloat16 or float16 takes oneDNN's product whatever its weight's size, where vLLM
  has another kernel for weights up to 1 MiB on processors with AMX. Products in int8, and of less than 16 columns, stay
  vLLM's.
Why: that kernel is for the few rows of a decoding step. A step of full canvases has hundreds or thousands: with 512 rows
  it takes a quarter more time than oneDNN's, with 1,800 two thirds, with 100 a tenth less (docs/speed.md).
Applied: in each rank, by worker/worker.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM chooses by the number of rows.
"""

import torch
from vllm.model_executor.layers import utils

from vllm_dllm.patches.wrap import wrap

COLUMNS = 16  # of vLLM's kernel at a time: with less it computes in float32


def _check_cpu_sgl_kernel(original, n, k, dtype):
    return original(n, k, dtype) and (dtype == torch.int8 or n < COLUMNS)


def apply() -> None:
    """For a rank's process, before it loads a model."""
    wrap(utils, "check_cpu_sgl_kernel", _check_cpu_sgl_kernel)
