"""An engine for each model whose attention is causal by blocks, started once."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from block_causal import BlockCausal
from common import CHECKPOINTS, Engine

torch.set_num_threads(1)  # the matrices are tiny: more threads only wait for each other


@pytest.fixture(scope="session")
def plain_sdar() -> BlockCausal:
    return BlockCausal.load(CHECKPOINTS / "tiny-sdar")


@pytest.fixture(scope="package")
def sdar(tmp_path_factory) -> Iterator[Engine]:
    with closing(Engine("tiny-sdar", tmp_path_factory.mktemp("sdar") / "trace.jsonl")) as engine:
        yield engine


@pytest.fixture(scope="package")
def llada2(tmp_path_factory) -> Iterator[Engine]:
    with closing(Engine("tiny-llada2", tmp_path_factory.mktemp("llada2") / "trace.jsonl")) as engine:
        yield engine
