"""What `vllm serve` and `LLM` refuse before an engine starts, each by name."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from common import CHECKPOINTS
from server_process import free_port
from vllm.engine.arg_utils import EngineArgs

from vllm_dllm.options import SettingError

MODEL = str(CHECKPOINTS / "tiny-llada")


def config(**arguments):
    return EngineArgs(**({"model": MODEL, "max_model_len": 256} | arguments)).create_engine_config()


def test_accepted_twice():
    """The refusals below are not of this; and the same arguments serve again."""
    arguments = EngineArgs(model=MODEL, additional_config={"dllm_gen_length": 32})
    for _ in range(2):
        assert arguments.create_engine_config().model_config.override_generation_config["max_new_tokens"] == 32


FEATURES = [
    ({"enable_lora": True}, ["enable_lora=True", "must be False"]),
    (
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}},
        ["speculative_config", "ngram", "must be None"],
    ),
    ({"pipeline_parallel_size": 2}, ["pipeline_parallel_size=2", "must be 1"]),
    ({"runner": "pooling"}, ["runner='pooling'", "must be 'generate'"]),
    (
        {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
        ["kv_transfer_config", "ExampleConnector", "must be None"],
    ),
    ({"logits_processors": ["some.module:Processor"]}, ["logits_processors", "some.module:Processor", "must be None"]),
    ({"logprobs_mode": "processed_logprobs"}, ["logprobs_mode='processed_logprobs'", "must be 'raw_logprobs'"]),
    ({"scheduler_cls": "some.module.Scheduler"}, ["scheduler_cls='some.module.Scheduler'", "must be None"]),
    ({"worker_cls": "some.module.Worker"}, ["worker_cls='some.module.Worker'", "must be 'auto'"]),
    (
        {"override_generation_config": {"max_new_tokens": 20}},
        ["max_new_tokens=20", "override_generation_config", "dllm_gen_length"],
    ),
]

SETTINGS = [
    ({"dllm_foo": 1}, ["dllm_foo=1", "is not a setting", "dllm_cache"]),
    ({"dllm_cache": "fast"}, ["dllm_cache='fast'", "one of none"]),
    ({"dllm_threshold": 2}, ["dllm_threshold=2", "from 0 to 1"]),
    ({"dllm_threshold": float("nan")}, ["dllm_threshold=nan", "from 0 to 1"]),
    ({"dllm_gen_length": 0}, ["dllm_gen_length=0", "at least 1"]),
    ({"dllm_steps": "8"}, ["dllm_steps='8'", "a whole number"]),
    ({"dllm_steps": 8, "dllm_factor": 1.0}, ["dllm_steps=8", "dllm_factor=1.0", "contradict", "at most one of"]),
    ({"dllm_alg_temp": 0.5}, ["dllm_alg_temp=0.5", "is not read by"]),
    ({"dllm_score": "origin"}, ["dllm_score='origin'", "one of"]),
    ({"dllm_gen_length": 256}, ["dllm_gen_length=256", "at most 255", "max_model_len"]),
]


@pytest.mark.parametrize("arguments, words", FEATURES, ids=lambda v: str(v)[:60])
def test_features(arguments, words):
    with pytest.raises(ValueError) as refusal:
        config(**arguments)
    for word in words:
        assert word in str(refusal.value)


def test_batch_invariant_mode_on_cpu(monkeypatch):
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    with pytest.raises(ValueError, match="VLLM_BATCH_INVARIANT=1 is not allowed with a diffusion model: it must be 0"):
        config()


@pytest.mark.parametrize("settings, words", SETTINGS, ids=lambda v: str(v)[:60])
def test_settings(settings, words):
    with pytest.raises(ValueError) as refusal:
        config(additional_config=settings)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    "path, why",
    [
        ("missing/trace.jsonl", "No such file or directory"),
        (".", "Is a directory"),
        ("pipe", "No such device or address"),
        ("/sys/kernel/trace.jsonl", "Permission denied"),
        ("file/trace.jsonl", "Not a directory"),
        ("", "No such file or directory"),
    ],
)
def test_a_trace_that_cannot_be_written(tmp_path, monkeypatch, path, why):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "file").touch()
    with pytest.raises(SettingError) as refusal:
        config(additional_config={"dllm_trace": path})
    begins = f"dllm_trace={path!r} is not allowed: it must be a file that can be appended to"
    assert str(refusal.value) == f"{begins} ({why})"


def test_a_trace_that_can_be_written(tmp_path):
    """Trying it changes nothing of it, and it need not be there."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("a line\n")
    for path in (old, new, "/dev/null"):
        config(additional_config={"dllm_trace": str(path)})
    assert old.read_text() == "a line\n"


def test_a_server_says_last_why_it_does_not_start(tmp_path):
    vllm = os.path.join(os.path.dirname(sys.executable), "vllm")
    arguments, said = ["--dllm-trace", "/nowhere/trace.jsonl"], "dllm_trace='/nowhere/trace.jsonl' is not allowed"
    command = [vllm, "serve", MODEL, "--port", str(free_port()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert said in output.splitlines()[-1], output
    assert "EngineCore" not in output and "Loading" not in output, "another process was started"


def test_dream_has_settings_of_its_own():
    dream = {"model": str(CHECKPOINTS / "tiny-dream")}
    config(**dream, additional_config={"dllm_steps": 8, "dllm_score": "origin"})
    config(**dream, additional_config={"dllm_steps": 8, "dllm_alg_temp": 0.5})


def test_checkpoint_option_that_is_not_honoured(tmp_path):
    """No model file is needed to refuse it: only its config is read."""
    changed = json.loads((CHECKPOINTS / "tiny-llada" / "config.json").read_text()) | {"alibi": True}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(CHECKPOINTS / "tiny-llada" / name, tmp_path)
    with pytest.raises(ValueError, match="alibi"):
        config(model=str(tmp_path))


def test_a_foreign_checkpoint_ends_the_server_in_its_first_process(tmp_path):
    """vLLM would have asked for remote code."""
    options = {"architectures": ["MMadaModelLM"], "model_type": "mmada", "auto_map": {"AutoConfig": "mmada.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(options))
    command = [os.path.join(os.path.dirname(sys.executable), "vllm"), "serve", str(tmp_path)]
    served = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = served.stdout + served.stderr
    assert served.returncode == 1
    assert "SettingError: architectures=['MMadaModelLM'] in the model's config.json is not allowed: MMaDA" in said
    assert "EngineCore" not in said
    assert "trust_remote_code=True" not in said
