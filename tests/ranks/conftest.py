"""A Ray cluster for all tests of this folder."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with ExitStack() as at_end:
        cluster = Cluster(cpus=2)
        at_end.callback(cluster.stop)
        yield cluster
