"""A regular language as a deterministic automaton over bytes. outlines_core makes it, from a regex."""

import re
from typing import NamedTuple

import numpy as np
import outlines_core  # type: ignore[import-untyped]

from vllm_dllm.options import SettingError

DEAD = -1
END = 256  # outlines_core's own mark of a whole word
# no text has this character: it and nothing else shows where a word ends
STOP, STOP_REGEX = "\U0010ffff", r"\x{10FFFF}"
ANCHOR = re.compile(r"\\[bBAzZG]|[$^]")
Transitions = dict[int, dict[int, int]]


class Language(NamedTuple):
    """What is asked for: a regex, and how it is read.

    `exact`: every word of it. Otherwise as outlines_core's token automata read a regex, by which structured outputs are
    defined: of alternatives that could end a word the first counts, and behind a whole word no token is taken that
    leaves an unfinished one.
    """

    regex: str
    exact: bool = False


class ByteAutomaton(NamedTuple):
    """States are 0 to S - 1, the start is 0. From each a word can be reached, but perhaps from the start."""

    steps: np.ndarray  # int32 [S, 256]: the state that a byte leads to, DEAD if no word goes on so
    accepting: np.ndarray  # bool [S]: what came so far is a word
    passing: np.ndarray  # bool [S]: tokens go through here, but none ends here


def byte_automaton(language: Language) -> ByteAutomaton:
    """Raises SettingError for a regex that is none, or that no automaton can follow."""
    try:
        regex = unanchored(language.regex)
        found = _exact(regex)
        if not language.exact:
            found = _as_outlines(regex, found)
    except ValueError as e:
        raise SettingError(
            f"regex={language.regex[:80]!r} is not allowed: it must be one that an automaton can follow, without anchors, "
            f"look-around and back references ({' '.join(str(e).split())[-200:]})",
            "regex",
        ) from None
    return _trimmed(found)


def unanchored(regex: str) -> str:
    """A regex that can be put between brackets, without `^` in front and `$` behind, which change nothing where the whole answer has to match.

    Raises ValueError for an anchor elsewhere, or a bracket that closes none.
    """
    regex = regex.removeprefix("^")
    if regex.endswith("$") and not (len(regex) - len(regex[:-1].rstrip("\\")) - 1) % 2:
        regex = regex[:-1]
    bare = re.sub(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\[^bBAzZG]", "", regex)  # without classes and escapes
    if anchor := ANCHOR.search(bare):
        raise ValueError(f"there is {anchor.group()!r} inside")
    depths = np.cumsum([{"(": 1, ")": -1}.get(character, 0) for character in bare])
    if (depths < 0).any():
        raise ValueError("unopened group")
    return regex


def _index(regex: str, vocabulary: dict[bytes, list[int]]) -> outlines_core.Index:
    return outlines_core.Index(regex, outlines_core.Vocabulary(END, vocabulary))


def _bytes() -> dict[bytes, list[int]]:
    return {bytes([byte]): [byte] for byte in range(256)}


def _matrix(index: outlines_core.Index, transitions: Transitions, states: dict[int, int]) -> ByteAutomaton:
    """The steps over single bytes. `states` becomes the number of each of the index's states."""
    states.setdefault(index.get_initial_state(), 0)
    for state, row in transitions.items():
        for target in (state, *row.values()):
            states.setdefault(target, len(states))
    steps = np.full((len(states), 256), DEAD, np.int32)
    for state, row in transitions.items():
        for token, target in row.items():
            if token < END:
                steps[states[state], token] = states[target]
    accepting = np.zeros(len(states), bool)
    accepting[[states[s] for s in index.get_final_states() if s in states]] = True
    return ByteAutomaton(steps, accepting, np.zeros(len(states), bool))


def _exact(regex: str) -> ByteAutomaton:
    """Every word: only behind it shows that it is whole, so that nothing is cut off where one ends."""
    index = _index(f"(?:{regex}){STOP_REGEX}", _bytes())
    steps, stopped, passing = _matrix(index, index.get_transitions(), {})
    state = np.arange(len(steps))
    for byte in STOP.encode():
        state = np.where(state == DEAD, DEAD, steps[state, byte])
    accepting = (state != DEAD) & stopped[state]
    steps[np.isin(steps, np.flatnonzero(stopped))] = DEAD
    return ByteAutomaton(steps, accepting, passing)


def _as_outlines(regex: str, exact: ByteAutomaton) -> ByteAutomaton:
    """As outlines_core's token automata go.

    They leave out a token that ends one byte behind a whole word, and is no word itself; longer tokens go through. So
    over single bytes such states are missing. What lies behind them is seen over tokens of two bytes.
    """
    whole = _trimmed(exact)
    goes_on = whole.steps[whole.accepting]
    if not (goes_on != DEAD).any():  # behind a word there is nothing: no difference
        return exact
    # bytes that make no difference; one stands for all
    _, first, alike = np.unique(whole.steps, axis=1, return_index=True, return_inverse=True)
    behind = [i for i, byte in enumerate(first) if (goes_on[:, byte] != DEAD).any()]
    pairs = {(i, j): END + 1 + n for n, (i, j) in enumerate((i, j) for i in behind for j in range(len(first)))}
    index = _index(regex, _bytes() | {bytes([first[i], first[j]]): [token] for (i, j), token in pairs.items()})
    transitions, states = index.get_transitions(), dict[int, int]()
    found = _matrix(index, transitions, states)
    rows: dict[tuple[int, ...], int] = {}  # the states that are missing, by what lies behind them
    for state, row in transitions.items():
        number = states[state]
        for i in behind:
            if found.accepting[number] and found.steps[number, first[i]] == DEAD:
                targets = tuple(states.get(row.get(pairs[i, j]), DEAD) for j in range(len(first)))
                if any(target != DEAD for target in targets):
                    found.steps[number, alike == i] = rows.setdefault(targets, len(states) + len(rows))
    missing = np.asarray(list(rows), np.int32).reshape(len(rows), len(first))[:, alike]
    return ByteAutomaton(
        np.concatenate([found.steps, missing]),
        np.concatenate([found.accepting, np.zeros(len(rows), bool)]),
        np.arange(len(states) + len(rows)) >= len(states),
    )


def _trimmed(automaton: ByteAutomaton) -> ByteAutomaton:
    """Without the states that are not reached, and those from which no word is."""
    steps, accepting, passing = automaton
    source, byte = np.nonzero(steps != DEAD)
    target = steps[source, byte]
    start = np.arange(len(steps)) == 0
    kept = spread(start, source, target) & spread(accepting, target, source)
    kept[0] = True
    number = np.where(kept, np.cumsum(kept) - 1, DEAD).astype(np.int32)
    return ByteAutomaton(
        np.where(steps == DEAD, DEAD, number[steps])[kept].astype(np.int32), accepting[kept], passing[kept]
    )


def spread(reached: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """All states that are reached from those in `reached` over the steps from `source` to `target`."""
    pairs = np.unique(source.astype(np.int64) * len(reached) + target)
    source, target = np.divmod(pairs, len(reached))
    starts = np.searchsorted(source, np.arange(len(reached) + 1))
    reached, todo = reached.copy(), np.flatnonzero(reached)
    while len(todo):
        found = np.zeros(len(reached), bool)
        for state in todo.tolist():
            found[target[starts[state] : starts[state + 1]]] = True
        todo = np.flatnonzero(found & ~reached)
        reached |= found
    return reached
