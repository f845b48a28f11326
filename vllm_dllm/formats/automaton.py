"""A format as an automaton over tokens, and what is asked of it in every pass.

Tokens that lead from the same states to the same states are one class, so that work depends on states and the
transitions between them, not on the vocabulary.
"""

import io

import numpy as np

NEVER = 0  # the class of tokens that stand nowhere
KEPT = 16 << 20  # bytes of what was found out about sets of states, which is then found out anew


class StateSet:
    """Some of an automaton's states, and what has been asked about them. Made by `Automaton.set_of` alone."""

    __slots__ = ("admitted", "after", "before", "states")

    def __init__(self, states: np.ndarray):
        self.states = states  # bool [S]
        self.after: dict[int, StateSet] = {}  # by class
        self.before: dict[int, StateSet] = {}
        self.admitted: dict[StateSet, np.ndarray] = {}


ANY, WORDS = -1, -2  # in place of a class: every token, every token but the end


class Automaton:
    """States 0 to S - 1; the start is 0, the last one is where the answer has ended: only ends follow.

    `class_of` is int32 [vocabulary], a token's class: NEVER, or which transitions it makes. `end` is the class of the
    tokens that end an answer. A transition is (class, source, target), in order of the classes.
    """

    def __init__(self, class_of: np.ndarray, end: int, accepting: np.ndarray, transitions: np.ndarray, shortest: int):
        """`accepting` is bool [S - 1]; `transitions` int32 [3, T] without the end's; `shortest`: tokens of the shortest
        word."""
        self.class_of = class_of
        self.end = end
        self.num_states = len(accepting) + 1
        self.num_classes = end + 1
        self.shortest = shortest
        ended = self.num_states - 1
        last = np.append(np.flatnonzero(accepting), ended)
        ends = np.stack([np.full(len(last), end), last, np.full(len(last), ended)])
        self.classes, self.sources, self.targets = np.concatenate([transitions, ends], axis=1).astype(np.int32)
        self.starts = np.searchsorted(self.classes, np.arange(end + 2))
        self.steps = {
            ANY: _pairs(self.sources, self.targets, self.num_states),
            WORDS: _pairs(transitions[1], transitions[2], self.num_states),
        }
        self._sets: dict[bytes, StateSet] = {}
        self._spent = 0
        first, whole = np.zeros((2, self.num_states), bool)
        first[0] = True
        whole[last] = True
        self.first, self.whole = self.set_of(first), self.set_of(whole)
        whole = whole.copy()
        whole[ended] = False
        self.words = self.set_of(whole)  # whole words alone: where no end may follow

    # ---- as bytes ----

    def pack(self) -> bytes:
        buffer = io.BytesIO()
        part = self.starts[self.end]
        np.savez_compressed(
            buffer,
            class_of=self.class_of,
            accepting=self.words.states[:-1],
            transitions=np.stack([self.classes[:part], self.sources[:part], self.targets[:part]]),
            numbers=np.asarray([self.end, self.shortest]),
        )
        return buffer.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> "Automaton":
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            end, shortest = arrays["numbers"].tolist()
            return cls(arrays["class_of"], end, arrays["accepting"], arrays["transitions"], shortest)

    # ---- sets of states ----

    def set_of(self, states: np.ndarray) -> StateSet:
        key = np.packbits(states).tobytes()
        found = self._sets.get(key)
        if found is None:
            found = self._sets[key] = StateSet(states)
            self._spend(2 * len(states))
        return found

    def _spend(self, size: int) -> None:
        """Sets that somebody still uses stay with who uses them, and know nothing of others any more."""
        self._spent += size
        if self._spent > KEPT:
            self._spent = 0
            for found in self._sets.values():
                for memo in (found.after, found.before, found.admitted):
                    memo.clear()
            self._sets.clear()

    def after(self, states: StateSet, kind: int) -> StateSet:
        """Where a token of a class leads from `states`; ANY or WORDS: where one of them leads."""
        return self._moved(states, kind, states.after, back=False)

    def before(self, states: StateSet, kind: int) -> StateSet:
        """From where a token of a class leads into `states`."""
        return self._moved(states, kind, states.before, back=True)

    def _moved(self, states: StateSet, kind: int, known: dict[int, StateSet], back: bool) -> StateSet:
        found = known.get(kind)
        if found is None:
            here, there = reversed(self._of(kind)) if back else self._of(kind)
            result = np.zeros(self.num_states, bool)
            result[there[states.states[here]]] = True
            found = known[kind] = self.set_of(result)
        return found

    def _of(self, kind: int) -> tuple[np.ndarray, np.ndarray]:
        if kind < 0:
            return self.steps[kind]
        part = slice(self.starts[kind], self.starts[kind + 1])
        return self.sources[part], self.targets[part]

    def admitted(self, before: StateSet, after: StateSet, end: bool) -> np.ndarray:
        """bool [classes]: what leads from one of `before` to one of `after`. Not to be written to."""
        found = before.admitted.get(after)
        if found is None:
            live = before.states[self.sources] & after.states[self.targets]
            found = np.zeros(self.num_classes, bool)
            found[self.classes[live]] = True
            before.admitted[after] = found
            self._spend(2 * len(found))
        if not end and found[self.end]:
            found = found.copy()
            found[self.end] = False
        return found

    def meet(self, states: StateSet, others: StateSet) -> bool:
        return bool((states.states & others.states).any())


def _pairs(sources: np.ndarray, targets: np.ndarray, num_states: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.unique(sources.astype(np.int64) * num_states + targets)
    source, target = np.divmod(pairs, num_states)
    return source.astype(np.int32), target.astype(np.int32)
