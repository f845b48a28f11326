"""The Triton kernels: they give what the reference gives, and they compile for GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vllm_dllm.attention_maps import kernels

POINTERS = {
    "result": "*fp32",
    "sums": "*fp32",
    "weights": "*fp32",
    "starts": "*i32",
    "lengths": "*i32",
    "table": "*i32",
}
DTYPES = {"bf16": tl.bfloat16, "fp32": tl.float32}


def test_they_give_what_the_reference_gives():
    """In a process of their own: Triton's interpreter must be asked for before Triton is imported."""
    here = Path(__file__).parent
    interpreter = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", here / "interpreted.py"]
    run = subprocess.run(command, env=os.environ | interpreter, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel, mass", [("_log_sum_exp", None), ("_probabilities", True), ("_probabilities", False)])
def test_they_compile_for_a_gpu(kernel, mass, dtype):
    """The compiler refuses some things that the interpreter does not mind. Needs no GPU. Heads of 80, in groups."""
    function = getattr(kernels, kernel)
    constants = {"GROUP": 7, "PAGE": 32, "SIZE": 80, "WIDTH": 128, "ROWS": 32, "KEYS": 32, "DOT": DTYPES[dtype]}
    if mass is not None:
        constants |= {"MASS": mass} | ({} if mass else {"weights": None})
    types = POINTERS | {"queries": f"*{dtype}", "keys": f"*{dtype}", "scale": "fp32"}
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in function.arg_names}
    source = ASTSource(function, signature, {(function.arg_names.index(n),): v for n, v in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_stages": 2})
    assert compiled.metadata.shared <= 99 * 1024  # what the smallest GPUs of this generation have
    assert ("mma.sync" in compiled.asm["ptx"]) == (dtype == "bf16")  # float32 is not rounded to fit tensor cores
