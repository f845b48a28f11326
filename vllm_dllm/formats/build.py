"""From a regular language and a vocabulary to an automaton over tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vllm_dllm.formats.automaton import NEVER, Automaton
from vllm_dllm.formats.language import DEAD, ByteAutomaton, Language, byte_automaton, spread
from vllm_dllm.options import SettingError

# what a format may come to: beyond, a pass would take longer to check than to compute
MOST_STATES, MOST_TRANSITIONS = 20_000, 200_000
MOST_CELLS = 1 << 28  # states times different effects of tokens, int16 each, while it is built


class Vocabulary(NamedTuple):
    """A model's tokens as text. `tokens` has one entry for each id; b"": it belongs to no word."""

    tokens: tuple[bytes, ...]
    ends: tuple[int, ...]  # the tokens that end an answer


class Spelling:
    """A vocabulary's bytes in flat arrays, made once."""

    def __init__(self, vocabulary: Vocabulary):
        self.ends = vocabulary.ends
        self.size = len(vocabulary.tokens)
        self.text = np.frombuffer(b"".join(vocabulary.tokens), np.uint8)
        self.lengths = np.asarray([len(t) for t in vocabulary.tokens])
        self.starts = np.cumsum(self.lengths) - self.lengths


def build(language: Language, spelling: Spelling) -> Automaton:
    """Raises SettingError if there is no such automaton, or if it is too large."""
    found = byte_automaton(language)
    if len(found.steps) > MOST_STATES:
        raise over("states", len(found.steps), MOST_STATES)
    effect_of, effects = _effects(found, spelling)
    kinds, sources = np.nonzero(effects != DEAD)
    targets = effects[kinds, sources].astype(np.int64)
    used = np.isin(np.arange(len(effects)), effect_of)
    return _automaton(found.accepting, effect_of, used, kinds, sources, targets, spelling)


def over(what: str, number: int, most: int) -> SettingError:
    return SettingError(
        f"a format of {number} {what} is not allowed: it must have at most {most}; shorter bounds on lengths and counts, "
        "and fewer alternatives, make it smaller"
    )


def _effects(automaton: ByteAutomaton, spelling: Spelling) -> tuple[np.ndarray, np.ndarray]:
    """Each token's effect, and the effects: int16 [effects, S], the state that each state is led to. Effect 0: none.

    All tokens go through their bytes together. Those that have had the same effect so far go as one, whichever they are.
    """
    steps = automaton.steps.astype(np.int16)  # MOST_STATES fit
    num_states = len(steps)
    _, first, kind_of = np.unique(steps, axis=1, return_index=True, return_inverse=True)
    # the state behind the last one is dead, and stays so
    columns = np.concatenate([steps[:, first], np.full((1, len(first)), DEAD, np.int16)]).T.copy()
    known = _Known(num_states)
    effect = np.full(spelling.size, known.add(np.arange(num_states, dtype=np.int16)[None])[0])
    effect[spelling.lengths == 0] = 0
    alive = np.flatnonzero(spelling.lengths)
    depth = 0
    while len(alive):
        kinds = kind_of[spelling.text[spelling.starts[alive] + depth]]
        pairs, which = np.unique(effect[alive] * len(first) + kinds, return_inverse=True)
        results = np.empty(len(pairs), np.int64)
        size = max(1, (1 << 24) // num_states)
        for low in range(0, len(pairs), size):
            old, kind = np.divmod(pairs[low : low + size], len(first))
            results[low : low + size] = known.add(columns[kind[:, None], known.rows[old]])
        effect[alive] = results[which]
        depth += 1
        alive = alive[(effect[alive] != 0) & (spelling.lengths[alive] > depth)]
    effects = known.rows[: known.count].copy()
    effects[np.isin(effects, np.flatnonzero(automaton.passing))] = DEAD
    effects[:, automaton.passing] = DEAD
    return effect, effects


class _Known:
    """Rows of int16, each kept once. Number 0 is the row of DEAD."""

    def __init__(self, width: int):
        self.rows = np.full((64, width), DEAD, np.int16)
        self.count = 1
        self.mixers = np.random.default_rng(0).integers(1, 2**63, width, np.uint64) | np.uint64(1)
        self.numbers: dict[int, int] = {int(self._mixed(self.rows[:1])[0]): 0}

    def _mixed(self, rows: np.ndarray) -> np.ndarray:
        return (rows.astype(np.uint64) * self.mixers).sum(1, dtype=np.uint64)

    def add(self, rows: np.ndarray) -> np.ndarray:
        """The rows' numbers, new ones for those that are new."""
        mixed, first, which = np.unique(self._mixed(rows), return_index=True, return_inverse=True)
        numbers = np.empty(len(first), np.int64)
        for i, (key, at) in enumerate(zip(mixed.tolist(), first.tolist(), strict=True)):
            number = self.numbers.get(key)
            if number is None:
                number = self.numbers[key] = self.count
                self._keep(rows[at])
            numbers[i] = number
        numbers = numbers[which]
        assert (self.rows[numbers] == rows).all(), "two effects were taken for one"
        return numbers

    def _keep(self, row: np.ndarray) -> None:
        if self.count == len(self.rows):
            if 2 * self.rows.size > MOST_CELLS:
                raise over("states times classes of tokens", 2 * self.rows.size, MOST_CELLS)
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        self.rows[self.count] = row
        self.count += 1


def _automaton(
    accepting: np.ndarray,
    effect_of: np.ndarray,
    used: np.ndarray,
    kinds: np.ndarray,
    sources: np.ndarray,
    targets: np.ndarray,
    spelling: Spelling,
) -> Automaton:
    """What of the states can be reached over tokens, and leads to a word over tokens.

    A transition is over tokens of an effect (`kinds`); `used` are the effects that some token has.
    """
    start = np.arange(len(accepting)) == 0
    live = used[kinds]
    reached = spread(start, sources[live], targets[live])
    live &= reached[sources]
    kept = reached & spread(accepting & reached, targets[live], sources[live])
    if not kept[0]:
        raise SettingError("a format without a word is not allowed: no sequence of the model's tokens matches it")
    live &= kept[sources] & kept[targets]
    if np.count_nonzero(live) > MOST_TRANSITIONS:
        raise over("transitions", int(np.count_nonzero(live)), MOST_TRANSITIONS)
    number = np.cumsum(kept) - 1
    kinds, sources, targets = kinds[live], number[sources[live]], number[targets[live]]
    present, class_of_live = np.unique(kinds, return_inverse=True)
    class_of = np.full(len(used), NEVER, np.int32)
    class_of[present] = np.arange(1, len(present) + 1)
    end = len(present) + 1
    tokens = class_of[effect_of].astype(np.int32)
    tokens[list(spelling.ends)] = end
    transitions = np.stack([class_of_live + 1, sources, targets]).astype(np.int32)
    return Automaton(tokens, end, accepting[kept], transitions, _shortest(accepting[kept], sources, targets))


def _shortest(accepting: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> int:
    """Tokens of the shortest word."""
    reached = np.arange(len(accepting)) == 0
    length = 0
    while not (reached & accepting).any():
        reached[targets[reached[sources]]] = True
        length += 1
    return length


def vocabulary(tokens: Sequence[bytes], ends: Sequence[int]) -> Vocabulary:
    """`tokens` as they are spelt, of which `ends` belong to no word."""
    spelt = list(tokens)
    for end in ends:
        spelt[end] = b""
    return Vocabulary(tuple(spelt), tuple(ends))
