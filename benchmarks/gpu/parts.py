"""The parts of one process: each is tried, timed, and written down before the next begins."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from report import write_part


def say(text: str) -> None:
    """A line of progress, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Parts:
    """`names` are the parts that this process is to run, in their order."""

    def __init__(self, out: Path, group: str, names: list[str]):
        self.out, self.group, self.names = out, group, names
        self.current: str | None = None  # None before the first

    def run(self, body: Callable[["Parts"], None]) -> None:
        """`body` calls the parts. The one place that catches what they raise: the part is written down as failed,
        and the process ends with status 1, for after an error on the device nothing in it is to be trusted."""
        say(f"{self.group}: starting")
        try:
            body(self)
        except Exception as e:
            say(f"{self.group}/{self.current or ''} FAILED\n{traceback.format_exc()}")
            for name in [self.current] if self.current else self.names:  # what cannot start would not start again
                write_part(self.out, self.group, name, {"error": f"{type(e).__name__}: {e}"[:2000]})
            raise SystemExit(1) from e

    def __call__(self, name: str, part: Callable[[], dict]) -> None:
        """Run a part, if it is wanted."""
        if name not in self.names:
            return
        self.current, begin = name, time.perf_counter()
        found = part() | {"seconds": round(time.perf_counter() - begin, 1)}
        write_part(self.out, self.group, name, found)
        say(f"{self.group}/{name}: {found}"[:700])
        # what fails between two parts is the second one's
        self.current = self.names[min(self.names.index(name) + 1, len(self.names) - 1)]
