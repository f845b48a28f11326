"""Options and paths of all tests."""

import gc
import sys

import pytest
from common import CHECKPOINTS, GOLDEN
from sampling import SEEDS, Sampling, seed_of_commit
from together import SHARING, Together, share_cores

share_cores()
gc.disable()  # until all is imported: see patches/quick_start.py
sys.path += [str(GOLDEN), str(CHECKPOINTS)]

LONGEST_FIRST = (*SHARING, "examples", "models", "attention", "kernels")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("golden files")
    choices = {"choices": ("sample", "all"), "default": "sample"}
    group.addoption("--golden", help="which cases of tests/golden to run (default: sample)", **choices)
    seed = f"the seed of the sample (default: 0 to {SEEDS - 1}, by the commit)"
    group.addoption("--golden-seed", type=int, metavar="N", help=seed)


def chosen(config: pytest.Config) -> Sampling:
    seed = config.getoption("--golden-seed")
    return Sampling(seed_of_commit() if seed is None else seed, everything=config.getoption("--golden") == "all")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log) -> Together | None:
    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process is left with much when the other is done."""
    order = {name: i for i, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_report_header(config: pytest.Config) -> str:
    return f"golden files: {chosen(config)}"


@pytest.fixture(scope="session")
def sampling(request) -> Sampling:
    """Which cases of the golden files to run."""
    return chosen(request.config)
