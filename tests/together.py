"""Which tests pytest-xdist gives to one process: those of a file, and of a folder whose files share an engine."""

import os
from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling

# Folders whose files share an engine, a server or a cluster. The longest first.
SHARING = ("ranks", "engine", "server", "causal")


class Together(LoadScopeScheduling):
    """`--dist loadfile` with folders too. By names, for pytest-xdist 3.8 reads no `xdist_group` with pytest 9.2
    (https://github.com/pytest-dev/pytest-xdist/issues/1386): it says nothing and starts each engine twice."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        folder = PurePath(file).parent.name
        return folder if folder in SHARING else file


def share_cores() -> None:
    """As many threads for each of several processes as there are cores for it, in the engines that it starts too: more
    would wait for each other. Before PyTorch is imported."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
