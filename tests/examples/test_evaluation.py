"""The harness's command line with our model class and an engine of its own, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from common import CHECKPOINTS
from evaluated import TASKS, PlainLoop

SETTINGS = {"dllm_cache": "prefix", "dllm_block_length": 16, "dllm_gen_length": 48, "dllm_tokens_per_step": 2}
DRAWS = {"mc_num": 8, "strata": 4, "seed": 3}
ENGINE = {"dtype": "float32", "max_model_len": 512, "kv_cache_memory_bytes": 1 << 28}


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "vllm_dllm.lm_eval", "--model", "vllm-dllm", *arguments],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )


def requests(folder: Path, task: str) -> list[tuple[list, object]]:
    """(arguments, response) of each request that the harness wrote down."""
    (file,) = folder.rglob(f"samples_{task}_*.jsonl")
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        (list(arguments.values()), response[0])
        for sample in samples
        for arguments, response in zip(sample["arguments"].values(), sample["resps"], strict=True)
    ]


def test_answers_and_scores_are_a_plain_loops(tmp_path):
    """A Dream model: no blocks of its own, an end token behind each target; one shot, in the chat template."""
    model = {"pretrained": CHECKPOINTS / "tiny-dream", **ENGINE, **SETTINGS, **DRAWS}
    result = run(
        *("--model_args", ",".join(f"{name}={value}" for name, value in model.items())),
        *("--include_path", str(TASKS), "--tasks", "tiny_count,tiny_choice", "--num_fewshot", "1"),
        *("--apply_chat_template", "--output_path", str(tmp_path), "--log_samples"),
    )
    assert result.returncode == 0, result.stderr[-4000:]
    for bar in ("generate_until", "loglikelihood"):
        assert f"Running {bar} requests: 100%" in result.stderr
    plain = PlainLoop("tiny-dream")
    for (prompt, arguments), text in requests(tmp_path, "tiny_count"):
        assert prompt.count("<|user|>") == 2
        assert text == plain.answer(prompt, arguments, SETTINGS)
    for (prompt, target), (score, _) in requests(tmp_path, "tiny_choice"):
        assert float(score) == pytest.approx(plain.estimate(prompt, target, **DRAWS), abs=1e-3)
