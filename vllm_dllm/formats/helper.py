"""The process that builds formats: beside the engine and its front end, which so go on meanwhile.

It ends when the one that started it does, and by force where a format takes too much memory or time.
"""

import contextlib
import os
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

from vllm_dllm.formats.asked import Asked
from vllm_dllm.formats.build import Spelling, Vocabulary, build
from vllm_dllm.options import SettingError

PATIENCE = 4.0  # seconds that are left to whoever waits for a format to end the process


class Built(NamedTuple):
    """A format, ready to be sent to an engine."""

    packed: bytes  # `Automaton.pack`
    shortest: int  # tokens of its shortest word
    states: int
    classes: int
    transitions: int
    seconds: float  # of CPU


class Refused(NamedTuple):
    message: str
    parameter: str | None


def built(asked: Asked, spelling: Spelling) -> Built | Refused:
    began = time.process_time()
    try:
        automaton = build(asked.language(), spelling)
    except SettingError as e:
        return Refused(str(e), e.parameter)
    except (MemoryError, RecursionError):
        return Refused("a format is not allowed that takes so much memory to build: it must be smaller", None)
    except Exception as e:  # a fault of ours, and this request's alone
        return Refused(f"the format could not be built ({type(e).__name__}: {e})", None)
    stats = (automaton.shortest, automaton.num_states, automaton.num_classes, len(automaton.classes))
    return Built(automaton.pack(), *stats, seconds=time.process_time() - began)


def serve(connection: Connection, seconds: float, memory: int) -> None:
    """Answer each `Asked` that comes with `Built` or `Refused`. First of all comes the vocabulary. `memory` in bytes.

    A format that takes more than `seconds` ends the process, if nobody else does.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, BrokenPipeError):  # the other end is gone
        spelling = Spelling(Vocabulary(*connection.recv()))
        while True:
            asked = Asked(*connection.recv())
            signal.setitimer(signal.ITIMER_REAL, seconds + PATIENCE)
            answer = built(asked, spelling)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)


def main() -> None:
    """Of a process that was started with the number of its end of the pipe, and the seconds and bytes a format may take."""
    os.nice(5)  # a request that has its format goes first
    serve(Connection(int(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3]))
