"""Options and paths of all tests."""

import sys

import pytest
from common import CHECKPOINTS, GOLDEN
from sampling import SEEDS, Sampling, seed_of_commit

sys.path += [str(GOLDEN), str(CHECKPOINTS)]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("golden files")
    choices = {"choices": ("sample", "all"), "default": "sample"}
    group.addoption("--golden", help="which cases of tests/golden to run (default: sample)", **choices)
    seed = f"the seed of the sample (default: 0 to {SEEDS - 1}, by the commit)"
    group.addoption("--golden-seed", type=int, metavar="N", help=seed)


def chosen(config: pytest.Config) -> Sampling:
    seed = config.getoption("--golden-seed")
    return Sampling(seed_of_commit() if seed is None else seed, everything=config.getoption("--golden") == "all")


def pytest_report_header(config: pytest.Config) -> str:
    return f"golden files: {chosen(config)}"


@pytest.fixture(scope="session")
def sampling(request) -> Sampling:
    """Which cases of the golden files to run."""
    return chosen(request.config)
