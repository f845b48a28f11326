"""An engine for each model whose attention is causal by blocks, started once."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from common import Engine


@pytest.fixture(scope="package")
def sdar(tmp_path_factory) -> Iterator[Engine]:
    with closing(Engine("tiny-sdar", tmp_path_factory.mktemp("sdar") / "trace.jsonl")) as engine:
        yield engine


@pytest.fixture(scope="package")
def llada2(tmp_path_factory) -> Iterator[Engine]:
    with closing(Engine("tiny-llada2", tmp_path_factory.mktemp("llada2") / "trace.jsonl")) as engine:
        yield engine
