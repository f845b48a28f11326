"""Formats, each built once, in processes of their own, in turn or a few at a time."""

import os
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import Pipe
from queue import SimpleQueue

from vllm_dllm.formats.asked import Asked
from vllm_dllm.formats.build import Vocabulary
from vllm_dllm.formats.helper import Built, Refused
from vllm_dllm.options import SettingError

SECONDS = 15.0  # that a format may take
MEMORY = 4 << 30  # bytes that the process that builds it may take
AT_ONCE = 4  # processes, so that a slow format holds back no others
KEPT = 64 << 20  # bytes of packed formats that are kept
START = "import sys; sys.path[:] = sys.argv[4:]; from vllm_dllm.formats.helper import main; main()"


class Helper:
    """One process that builds formats."""

    def __init__(self, vocabulary: Vocabulary, seconds: float, memory: int):
        self.seconds = seconds
        self.connection, theirs = Pipe()
        arguments = [str(theirs.fileno()), str(seconds), str(memory), *sys.path]
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
        )
        theirs.close()
        self.connection.send(tuple(vocabulary))

    def ask(self, asked: Asked) -> Built | Refused | None:
        """None: it takes longer. Raises EOFError if the process has died of it."""
        self.connection.send(tuple(asked))
        return self.connection.recv() if self.connection.poll(self.seconds) else None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


class Builder:
    """The formats of one vocabulary. Any thread may ask."""

    def __init__(self, vocabulary: Callable[[], Vocabulary], seconds: float = SECONDS, memory: int = MEMORY):
        """`vocabulary` is asked once, when the first format is."""
        self._vocabulary_of = vocabulary
        self._seconds = seconds
        self._memory = memory
        self._vocabulary: Vocabulary | None = None
        self._lock = threading.Lock()
        self._idle: list[Helper] = []
        self._known: OrderedDict[Asked, Future[Built]] = OrderedDict()
        self._due: SimpleQueue[tuple[Asked, Future[Built]] | None] = SimpleQueue()
        self._threads = 0

    def submit(self, asked: Asked) -> "Future[Built]":
        """The format, soon. Its exception is a SettingError if there is none, or if it takes too much."""
        with self._lock:
            found = self._known.get(asked)
            if found is None:
                found = self._known[asked] = Future()
                found.set_running_or_notify_cancel()  # a request that goes away takes it from nobody
                self._due.put((asked, found))
                if self._threads < AT_ONCE:
                    self._threads += 1
                    # a daemon, for which the end of the process does not wait
                    threading.Thread(target=self._work, name="dllm-formats", daemon=True).start()
            self._known.move_to_end(asked)
            return found

    def known(self, asked: Asked) -> "Future[Built] | None":
        """The format, if it is there."""
        found = self._known.get(asked)
        return found if found is not None and found.done() else None

    def _work(self) -> None:
        while (item := self._due.get()) is not None:
            asked, future = item
            try:
                future.set_result(self._build(asked))
            except Exception as e:
                future.set_exception(e)
            self._trim()

    def _trim(self) -> None:
        with self._lock:
            done = [(a, f) for a, f in self._known.items() if f.done()]
            size = {a: 1024 if f.exception() else len(f.result().packed) for a, f in done}
            for asked, _ in done[:-1]:
                if sum(size.values()) <= KEPT:
                    break
                del self._known[asked], size[asked]

    def _build(self, asked: Asked) -> Built:
        helper = self._take()
        try:
            answer = helper.ask(asked)
        except (EOFError, OSError):
            helper.end()
            raise SettingError(
                f"a format is not allowed that takes more than {self._memory / (1 << 30):g} GiB to build: it must be smaller"
            ) from None
        if answer is None:
            helper.end()
            with self._lock:
                self._known.pop(asked, None)  # another time the machine may be less busy
            raise SettingError(
                f"a format is not allowed that takes more than {self._seconds:g} s to build: it must be smaller"
            )
        with self._lock:
            self._idle.append(helper)
        if isinstance(answer, Refused):
            raise SettingError(answer.message, answer.parameter)
        return answer

    def _take(self) -> Helper:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._vocabulary is None:
                self._vocabulary = self._vocabulary_of()
            return Helper(self._vocabulary, self._seconds, self._memory)

    def close(self) -> None:
        """End the processes. Those that build end when they have built."""
        for _ in range(self._threads):
            self._due.put(None)
        with self._lock:
            while self._idle:
                self._idle.pop().end()
