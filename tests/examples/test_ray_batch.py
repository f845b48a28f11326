"""The batch job over Ray Data: stopped in the middle, and started again."""

import json
import os
import random
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import ROOT

PROMPTS, BATCH = 120, 8
# a pass for each token: slow enough to be stopped in the middle
SETTINGS = {"dllm_cache": "prefix", "dllm_steps": 96}
DEADLINE_S = 300


@contextmanager
def job(folder: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, ROOT / "examples/ray_batch.py", "--prompts", folder / "prompts.jsonl"]
    command += ["--output", folder / "output", "--batch", str(BATCH), "--settings", json.dumps(SETTINGS)]
    with open(folder / "log", "a") as log:
        # a cluster of its own, whatever else runs on this machine, and which does not wait for all that (Ray's 15)
        own = {"RAY_ADDRESS": "local", "RAY_worker_niceness": "0"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own)
    try:
        yield process
    finally:
        process.kill()


def answers(folder: Path) -> dict[str, list[dict]]:
    """By the name of a batch that was written, its answers. Ray Data removes what was not written to its end."""
    batches = [file.stem for file in (folder / "output/checkpoint").glob("*.parquet") if "pending" not in file.name]
    files = {batch: (folder / f"output/answers/{batch}.json").read_text() for batch in batches}
    return {batch: [json.loads(line) for line in text.splitlines()] for batch, text in files.items()}


def interrupt(running: subprocess.Popen) -> None:
    """As Ctrl-C does; again if nothing comes of it, for a KeyboardInterrupt inside a callback is lost."""
    for _ in range(8):
        running.send_signal(signal.SIGINT)
        try:
            running.wait(2)
            return
        except subprocess.TimeoutExpired:
            pass


def log_tail(folder: Path) -> str:
    return (folder / "log").read_text()[-4000:]


def test_goes_on_where_it_was_stopped(tmp_path):
    rng = random.Random(0)
    texts = ["".join(rng.choices(string.ascii_lowercase, k=8)) for _ in range(PROMPTS)]
    lines = [{"id": f"line {i}", "prompt": f"echo {text}", "text": text} for i, text in enumerate(texts)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    with job(tmp_path) as running:
        deadline = time.monotonic() + DEADLINE_S
        while not answers(tmp_path):
            assert running.poll() is None and time.monotonic() < deadline, log_tail(tmp_path)
            time.sleep(0.05)
        interrupt(running)
        assert running.wait(DEADLINE_S) != 0
    first = answers(tmp_path)
    assert 0 < sum(map(len, first.values())) < PROMPTS

    with job(tmp_path) as running:
        assert running.wait(DEADLINE_S) == 0, log_tail(tmp_path)
    found = answers(tmp_path)
    assert all(found[batch] == kept for batch, kept in first.items())
    rows = sorted((row for part in found.values() for row in part), key=lambda row: int(row["id"].split()[1]))
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    # each answer is to its own prompt; the checkpoint copies nearly all of them right
    assert sum(row["answer"] == text for row, text in zip(rows, texts, strict=True)) > 0.95 * PROMPTS
