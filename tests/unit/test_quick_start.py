"""vLLM's processes begin without Python's garbage collector, and have it again; others always have it.

In a real engine's: tests/ranks/test_tensor_parallel.py.
"""

import gc
import multiprocessing
from multiprocessing import spawn

import pytest

from vllm_dllm.patches import quick_start

WHEN_IMPORTED = gc.isenabled()  # by a process that is started, before its target runs


def collects(said) -> None:
    before = gc.isenabled()
    quick_start.end()  # as the plugin's entry point does
    starts_others = spawn.get_preparation_data is quick_start._get_preparation_data
    said.send((WHEN_IMPORTED, before, gc.isenabled(), gc.get_freeze_count() > 0, starts_others))


@pytest.mark.parametrize("name, ours", [("VllmWorker-0", True), ("a-users-own", False)])
def test_only_vllms_processes(monkeypatch, name, ours):
    monkeypatch.setattr(spawn, "get_preparation_data", spawn.get_preparation_data)  # put back at the end
    quick_start.apply()
    quick_start.apply()
    context = multiprocessing.get_context("spawn")
    said, theirs = context.Pipe()
    process = context.Process(target=collects, args=(theirs,), name=name)
    process.start()
    assert said.recv() == (not ours, not ours, True, ours, ours)
    process.join()
    assert process.exitcode == 0


def test_the_process_itself_is_left_alone(monkeypatch):
    monkeypatch.setattr(spawn, "get_preparation_data", quick_start._prepare)  # another test may have made a config here
    quick_start.end()
    assert gc.isenabled() and spawn.get_preparation_data is not quick_start._get_preparation_data
