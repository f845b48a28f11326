"""A tensor-parallel world of one in this process, for the tests that load a checkpoint without an engine."""

from collections.abc import Iterator

import pytest
from loaded import one_rank


@pytest.fixture(scope="package")
def world() -> Iterator[None]:
    with one_rank():
        yield
