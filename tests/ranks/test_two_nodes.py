"""Ranks on two nodes: as root of a network namespace of our own, where that is permitted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 540
NAMESPACES = "unshare --user --map-root-user --net --mount --mount-proc --pid --fork --kill-child".split()
# a shell is the first process there, for it sees to orphans
FIRST = ["sh", "-c", '"$@"; exit $?', "sh"]


def test_a_rank_on_each_node(sampling):
    """Through the commands of examples/multi_gpu, with requests over HTTP."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"a second node takes a network namespace: there is no command `{tool}`")
    permitted = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    if permitted.returncode:
        pytest.skip(f"a second node takes a network namespace, not permitted here: {permitted.stderr.strip()}")
    script = [str(Path(__file__).with_name("two_nodes.py")), str(sampling.seed), *(["all"] * sampling.everything)]
    command = [*NAMESPACES, *FIRST, sys.executable, *script]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
    assert ran.returncode == 0, ran.stdout
    assert "a rank on each node\n" in ran.stdout and " answers equal\n" in ran.stdout
