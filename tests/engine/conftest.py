"""Engines, each started once (half a minute on two cores), and the plain models that they are compared with."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import torch
from common import Engine
from plain import Plain

GRAPHS = {"worker_extension_cls": "graph_stand_in.WithGraphs"}  # which tests switch on and off
HIDDEN = {"dllm_hidden_cache": True}  # so that requests may choose elastic
TRANSFER = {"worker_extension_cls": "weights_from_file.Disturbed", "weight_transfer_config": {"backend": "file"}}

torch.set_num_threads(1)  # the matrices are tiny: more threads only wait for each other


@pytest.fixture(scope="session")
def plain_llada() -> Plain:
    return Plain("tiny-llada")


@pytest.fixture(scope="session")
def plain_dream() -> Plain:
    return Plain("tiny-dream")


@pytest.fixture(scope="package")
def llada(tmp_path_factory) -> Iterator[Engine]:
    trace = tmp_path_factory.mktemp("llada") / "trace.jsonl"
    with closing(Engine("tiny-llada", trace, additional_config=HIDDEN, **TRANSFER)) as engine:
        yield engine


@pytest.fixture(scope="package")
def dream(tmp_path_factory) -> Iterator[Engine]:
    trace = tmp_path_factory.mktemp("dream") / "trace.jsonl"
    with closing(Engine("tiny-dream", trace, additional_config=HIDDEN, **GRAPHS)) as engine:
        yield engine


# Room for 16 pages of 32 tokens, and for one canvas of the longest kind in a step; settings that requests override.
SMALL = {
    "num_gpu_blocks_override": 17,  # vLLM keeps one for itself
    "max_model_len": 256,
    "max_num_batched_tokens": 256,
    "additional_config": {"dllm_gen_length": 48, "dllm_block_length": 16, "dllm_tokens_per_step": 2},
}


@pytest.fixture(scope="package")
def small(tmp_path_factory) -> Iterator[Engine]:
    """An engine with little room, and with settings of its own."""
    with closing(Engine("tiny-llada", tmp_path_factory.mktemp("small") / "trace.jsonl", **SMALL)) as engine:
        yield engine
