"""`vllm-dllm compare` as a user runs it: prompts and a grader, interrupted and run again."""

import json
import random
import re
import signal
import subprocess
import sys
import time

import tasks
from common import CHECKPOINTS

POLICIES = ("none", "dual", "entropy:tau=1.0")
NUMBER = 24


def command(folder) -> list[str]:
    model, *options = (str(CHECKPOINTS / "tiny-dream"), "--prompts", str(folder / "prompts.jsonl"))
    options += ["--policies", *POLICIES[1:], "--output", str(folder / "out"), "--grade-regex", "^{want}$"]
    engine = {"dtype": "float32", "max-model-len": 256, "kv-cache-memory-bytes": 1 << 28, "max-num-seqs": 8}
    options += [part for name, value in engine.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "vllm_dllm", "compare", model, *options]


def test_it_keeps_what_it_has_goes_on_from_there_and_says_what_to_write(tmp_path):
    rng = random.Random(3)
    lines = [dict(zip(("prompt", "want"), tasks.sample(rng, "echo"), strict=True)) for _ in range(NUMBER)]
    lines[1] = {
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": lines[1]["prompt"]}]},
    } | lines[1]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line | {"max_tokens": 32}) + "\n" for line in lines))
    measured, report = tmp_path / "out" / "measured.jsonl", tmp_path / "out" / "report.md"

    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(command(tmp_path), stdout=log, stderr=log)
        deadline = time.monotonic() + 400
        while not (measured.exists() and len(measured.read_text().splitlines()) > 1):
            assert first.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-4000:]
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 128 + signal.SIGINT
    before = measured.read_text()
    assert "`none`" in report.read_text() and "Not measured yet: " in report.read_text()

    second = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=400)
    assert second.returncode == 0, second.stderr[-4000:]
    assert measured.read_text().startswith(before)  # it is not measured again
    runs = [json.loads(line) for line in measured.read_text().splitlines()[1:]]
    # rounds of 8 and 16 prompts, for three policies
    assert sorted(len(run["answers"]) for run in runs) == [8] * 3 + [16] * 3

    cells = re.findall(r"^\| `(.*?)` \| (.*) \|$", second.stdout, re.MULTILINE)
    assert [name for name, _ in cells] == list(POLICIES)
    shares = {name: re.findall(r"(\d+) %", rest) for name, rest in cells}
    assert shares["none"][:3] == ["100", "100", "100"]
    assert int(shares["dual"][0]) < 70 and int(shares["dual"][1]) >= 90  # computed; answers equal
    right = sum(a["text"] == lines[i % NUMBER]["want"] for run in _of(runs, "none") for i, a in run)
    assert int(shares["none"][3]) == round(100 * right / NUMBER) > 90
    said = second.stdout.split("Write `")[1]
    assert said.startswith(f"vllm serve {CHECKPOINTS / 'tiny-dream'} --dtype float32")


def _of(runs: list[dict], cache: str) -> list[list[tuple[int, dict]]]:
    """Numbered answers of one policy."""
    chosen = [run for run in runs if json.loads(run["settings"])["dllm_cache"] == cache]
    return [list(enumerate(run["answers"], run["round"][0])) for run in chosen]
