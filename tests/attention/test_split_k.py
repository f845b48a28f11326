"""`--attention-backend CUSTOM`: the kernels give what plain attention gives, an engine the golden answers, and
where it cannot be had, a sentence says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from common import CHECKPOINTS
from vllm.engine.arg_utils import EngineArgs

import vllm_dllm
from vllm_dllm.attention import choice
from vllm_dllm.options import SettingError

HERE = Path(__file__).parent
# Triton's interpreter must be asked for before Triton is imported: in a process of its own
INTERPRETER = {} if torch.cuda.is_available() else choice.INTERPRETER


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=os.environ | INTERPRETER, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_kernels_give_what_plain_attention_gives():
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", HERE / "interpreted_split_k.py")


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU `benchmarks/gpu check` asks a real engine")
def test_golden_answers():
    said = run(HERE / "golden_answers.py").splitlines()
    assert {"attention: SplitKBackend", "differences: [None, None, None]", "asked: 3"} <= set(said)


def config(**arguments):
    vllm_dllm.register()
    settings = {
        "model": str(CHECKPOINTS / "tiny-llada"),
        "max_model_len": 256,
        "attention_backend": "CUSTOM",
    } | arguments
    return EngineArgs(**settings).create_engine_config()


@pytest.fixture
def interpreter(monkeypatch):
    for name, value in choice.INTERPRETER.items():
        monkeypatch.setenv(name, value)


def test_accepted(interpreter):
    assert config().attention_config.backend == choice.CUSTOM and choice.CUSTOM.get_path() == choice.PATH


def test_refused_without_a_gpu(monkeypatch):
    for name in choice.INTERPRETER:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingError, match="attention_backend=CUSTOM is not allowed here: it needs a GPU; to try it"):
        config()


@pytest.mark.parametrize(
    "arguments, why",
    [
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype='fp8' must be 'auto'"),
        (
            {"hf_overrides": {"n_heads": 16, "n_kv_heads": 16}},
            "the model's heads have 8 numbers, and they must have 16",
        ),
    ],
)
def test_refused_for_a_model_or_a_setting(interpreter, arguments, why):
    with pytest.raises(SettingError, match=why):
        config(**arguments)


@pytest.mark.parametrize(
    "version, why",
    [(None, "it needs xformers"), ("0.0.34", "xformers 0.0.34 must be 0.0.35"), ("0.0.36.dev1", "0.0.36")],
)
def test_refused_for_what_is_installed(interpreter, monkeypatch, version, why):
    def installed(name):
        if version is None:
            raise choice.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(choice.importlib.metadata, "version", installed)
    with pytest.raises(SettingError, match=why):
        config()


def test_refused_with_a_triton_without_block_pointers(interpreter, monkeypatch):
    import triton.language as tl

    monkeypatch.delattr(tl, "make_block_ptr")
    with pytest.raises(SettingError, match="a Triton with block pointers"):
        config()
