"""Triton kernels of every step, read-out and RoPE: they give what the references give, and they compile for GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vllm_dllm.models.llada import rope_kernel
from vllm_dllm.worker import readout_kernel

HERE = Path(__file__).parent
KINDS = [("bf16", 80), ("bf16", 90), ("fp16", 90), ("fp32", 90)]  # dtypes, and compute capabilities


def test_they_give_what_the_references_give():
    """In a process of their own: Triton's interpreter must be asked for before Triton is imported."""
    interpreter = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    files = [HERE / "interpreted_readout.py", HERE / "interpreted_rope.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", *files]
    run = subprocess.run(command, env=os.environ | interpreter, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr


def compiled(function, types: dict[str, str], constants: dict[str, int], target: int, warps: int):
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in function.arg_names}
    source = ASTSource(function, signature, {(function.arg_names.index(n),): v for n, v in constants.items()})
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": warps})


@pytest.mark.parametrize("dtype, target", KINDS)
def test_the_read_out_compiles_for_a_gpu(dtype, target):
    """The compiler refuses some things that the interpreter does not mind. Needs no GPU."""
    types = {"best": "*fp32", "sums": "*fp32", "places": "*i32", "packed": "*i32", "logits": f"*{dtype}"}
    types |= {"doubles": "*fp64", "confidences": "*fp64"}
    for double in (False, True):
        tiles = compiled(readout_kernel._read_tiles, types, {"TILE": readout_kernel.TILE, "DOUBLE": double}, target, 8)
        constants = {"MASK": 7, "TILES": 16, "DOUBLE": double}
        together = compiled(readout_kernel._put_together, types, constants, target, 1)
        for kernel in (tiles, together):
            assert "ld.local" not in kernel.asm["ptx"], "registers do not suffice"


@pytest.mark.parametrize("dtype, target", KINDS)
def test_rope_compiles_for_a_gpu(dtype, target):
    types = {"query": f"*{dtype}", "key": f"*{dtype}", "positions": "*i64", "cache": "*fp32"}
    constants = {"SIZE": 80, "HALF": 40, "WIDTH": 64, "HEADS": rope_kernel.HEADS}
    assert compiled(rope_kernel._rotate_both, types, constants, target, 4).metadata.shared == 0
