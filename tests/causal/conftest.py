"""Engines for models whose attention is causal by blocks, each started once."""

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


# Steps that hold a part of most prompts only, and few pages to keep others' in.
SMALL = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "num_gpu_blocks_override": 41}


@pytest.fixture(scope="package")
def sdar(tmp_path_factory) -> Iterator[Engine]:
    changes = {"worker_extension_cls": "other_weights.Negated"}
    with closing(Engine("tiny-sdar", tmp_path_factory.mktemp("sdar") / "trace.jsonl", **changes)) as engine:
        yield engine


@pytest.fixture(scope="package")
def small_sdar(tmp_path_factory) -> Iterator[Engine]:
    with closing(Engine("tiny-sdar", tmp_path_factory.mktemp("small") / "trace.jsonl", **SMALL)) as engine:
        yield engine


@pytest.fixture(scope="package")
def whole_sdar(tmp_path_factory) -> Iterator[Engine]:
    """Without prefix caching and without chunks of a prompt."""
    off = {"enable_prefix_caching": False, "enable_chunked_prefill": False}
    with closing(Engine("tiny-sdar", tmp_path_factory.mktemp("plain") / "trace.jsonl", **off)) as engine:
        yield engine


@pytest.fixture(scope="package")
def llada2(tmp_path_factory) -> Iterator[Engine]:
    with closing(Engine("tiny-llada2", tmp_path_factory.mktemp("llada2") / "trace.jsonl")) as engine:
        yield engine
