"""Options and paths of all tests."""

import sys

import pytest
from common import CHECKPOINTS, GOLDEN
from sampling import SEEDS, Sampling, seed_of_commit

sys.path += [str(GOLDEN), str(CHECKPOINTS)]

# Folders whose tests share an engine, a server or a cluster: with `-n 2` each runs in one process, the longest first.
SHARING = ("ranks", "engine", "server", "examples", "models")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("golden files")
    choices = {"choices": ("sample", "all"), "default": "sample"}
    group.addoption("--golden", help="which cases of tests/golden to run (default: sample)", **choices)
    seed = f"the seed of the sample (default: 0 to {SEEDS - 1}, by the commit)"
    group.addoption("--golden-seed", type=int, metavar="N", help=seed)


def chosen(config: pytest.Config) -> Sampling:
    seed = config.getoption("--golden-seed")
    return Sampling(seed_of_commit() if seed is None else seed, everything=config.getoption("--golden") == "all")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in SHARING:
            item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
    order = {name: i for i, name in enumerate(SHARING)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))


def pytest_report_header(config: pytest.Config) -> str:
    return f"golden files: {chosen(config)}"


@pytest.fixture(scope="session")
def sampling(request) -> Sampling:
    """Which cases of the golden files to run."""
    return chosen(request.config)
