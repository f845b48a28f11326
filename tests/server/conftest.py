"""`vllm serve` processes for the tests in this folder, and clients of them: OpenAI's, and a browser."""

from collections.abc import Iterator

import pytest
from browsing import chromium
from damaged import damaged_copy
from served import Server
from server_process import start, stop, wait_until_healthy


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """For all that needs no other."""
    server = start(tmp_path_factory.mktemp("server"), dllm_watch="true")
    try:
        wait_until_healthy(server)
        yield server
    finally:
        if server.process.poll() != 0:  # test_stopping.py has stopped it
            stop(server)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory) -> Iterator[Server]:
    """A checkpoint that fails at one token, tools that the model may choose, and no live page."""
    folder = tmp_path_factory.mktemp("damaged")
    tools = {"enable_auto_tool_choice": None, "tool_call_parser": "hermes"}
    server = start(folder, str(damaged_copy("tiny-llada", folder / "checkpoint")), **tools)
    try:
        wait_until_healthy(server)
        yield server
    finally:
        if server.process.poll() is None:  # test_stopping.py has killed its engine
            stop(server)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """test_stopping.py ends the servers, so it comes last."""
    items.sort(key=lambda item: item.path.name == "test_stopping.py")


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    server = item.funcargs.get("server") if hasattr(item, "funcargs") else None
    if report.failed and isinstance(server, Server):
        report.sections.append(("the server's log, its end", server.log_tail()))
    return report
