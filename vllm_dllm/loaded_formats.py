"""The guaranteed formats of an engine's requests: what they bring, and what the worker has to hold for them."""

import weakref
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from vllm_dllm.constraints.format import Format
from vllm_dllm.formats.automaton import Automaton
from vllm_dllm.messages import Edits

KEPT = 32  # formats, beside those in use


class LoadedFormats:
    """The scheduler's. Formats that come again are found again, and so is what was worked out over them."""

    def __init__(self) -> None:
        self._automata: OrderedDict[str, Automaton] = OrderedDict()
        self._sent: OrderedDict[str, None] = OrderedDict()  # whose classes of tokens the worker holds
        self._live: weakref.WeakSet[Format] = weakref.WeakSet()

    def constraint(self, key: str, packed: bytes) -> Format:
        if key not in self._automata:
            self._automata[key] = Automaton.unpack(packed)
        self._automata.move_to_end(key)
        while len(self._automata) > KEPT:
            self._automata.popitem(last=False)
        found = Format(self._automata[key], key)
        self._live.add(found)
        return found

    def exchange(self, edits: Iterable[Edits | None]) -> tuple[dict[str, np.ndarray], list[str]]:
        """For a step's passes: the classes of tokens that the worker has not got yet, and whose it may drop, by key."""
        wanted = {e.admitted.key for e in edits if e is not None and e.admitted is not None}
        if not wanted:
            return {}, []
        classes = {f.key: f.automaton.class_of for f in self._live}
        tables = {key: classes[key] for key in sorted(wanted) if key not in self._sent}
        for key in wanted:
            self._sent[key] = None
            self._sent.move_to_end(key)
        spare = [key for key in self._sent if key not in classes]
        dropped = spare[: max(0, len(self._sent) - KEPT)]
        for key in dropped:
            del self._sent[key]
        return tables, dropped
