"""The examples that need no server, run as a user runs them. The others: tests/server/test_served_example.py."""

import json
import os
import re
import subprocess
import sys

from common import ROOT

EXAMPLES = ROOT / "examples"
# right on the bundled checkpoint, greedily
PROMPTS = [
    {"prompt": "echo diffusion", "want": "diffusion"},
    {"prompt": "calc 5+7", "want": "5+7=12;#12"},
    {"prompt": "echo canvas", "want": "canvas"},
    {"prompt": "echo page"},
]


def run(script: str, *arguments: str) -> str:
    """The script's output. Raises if it fails."""
    result = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_offline_batch(tmp_path):
    """Prompts from a file, settings from the command line; answers in order, graded where they can be."""
    prompts, answers = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text("\n".join(map(json.dumps, PROMPTS)) + "\n")
    settings = json.dumps({"dllm_tokens_per_step": 1, "dllm_trace": str(tmp_path / "trace.jsonl")})
    printed = run(
        "offline_batch.py",
        *("--prompts", str(prompts), "--output", str(answers), "--max-tokens", "48", "--settings", settings),
    )
    assert "4 answers" in printed and "3 of 3 right" in printed

    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [line["answer"] for line in lines] == ["diffusion", "5+7=12;#12", "canvas", "page"]
    assert [line.get("right") for line in lines] == [True, True, True, None]
    assert {line["finish_reason"] for line in lines} == {"stop"}

    trace = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert {line["gen_length"] for line in trace} == {48}
    assert all(len(unmasked) == 1 for line in trace for unmasked in line["unmasked"])  # the settings arrived


def test_rollouts():
    """Two short rounds. How much is learnt is for longer ones to show; what was drawn is what the trainer sees."""
    printed = run("rollouts.py", *("--rounds", "2", "--prompts", "4", "--answers", "4", "--held-out", "4"))
    rounds = re.findall(r"^round (\d): reward (\S+) of 16 answers; .* within (\S+) of the trainer's$", printed, re.M)
    assert [number for number, _, _ in rounds] == ["0", "1"] and "held out, greedily: " in printed
    assert max(float(difference) for *_, difference in rounds) < 1e-3, "the engine has the trainer's weights"
