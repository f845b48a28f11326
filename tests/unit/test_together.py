"""With two processes, tests that share an engine are run by one of them, each with its share of the cores."""

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
WHO = """
import json, os, time
import pytest

@pytest.mark.parametrize("number", range(3))
def test_who(request, number):
    time.sleep(0.1)  # or one process is done before the other has begun
    with open(os.environ["WHO"], "a") as file:
        said = [request.node.nodeid, os.environ["PYTEST_XDIST_WORKER"], os.environ["OMP_NUM_THREADS"]]
        file.write(json.dumps(said) + "\\n")
"""


def test_folders_and_files_stay_together(tmp_path):
    for name in ("conftest.py", "together.py", "sampling.py", "common.py"):
        (tmp_path / name).symlink_to(TESTS / name)
    files = ("engine/test_a.py", "engine/test_b.py", "unit/test_c.py", "server/test_d.py", "server/test_e.py")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(WHO)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    said = tmp_path / "who"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "OMP_"))}
    command = [sys.executable, "-m", "pytest", tmp_path, "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    ran = subprocess.run(command, env=environment | {"WHO": str(said)}, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr

    lines = [json.loads(line) for line in said.read_text().splitlines()]
    assert len(lines) == 3 * len(files)
    processes: dict[str, set[str]] = {}
    for nodeid, process, _ in lines:
        processes.setdefault(Path(nodeid.split("::")[0]).parent.name, set()).add(process)
    assert all(len(found) == 1 for found in processes.values()), processes
    assert processes["engine"] != processes["server"]
    assert {threads for *_, threads in lines} == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
