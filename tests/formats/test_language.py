"""Regexes as automata over bytes: the words that Python's `re` matches, and outlines_core's token automata."""

import itertools
import re

import outlines_core
import pytest

from vllm_dllm.formats.language import DEAD, ByteAutomaton, Language, byte_automaton
from vllm_dllm.options import SettingError

TOKENS = [b"a", b"b", b"c", b"d", b" ", b"1", b"2", b"ab", b" 1", b"bc", "é".encode(), b"\xc3", b"\xa9", b"1 1", b"a b"]
REGEXES = ["[0-9]+( [0-9]+)*", "(a|ab)", "(ab|a)(c|bcd)?", "a*?b?", "(a|b)*", "[é-ü]+a", "(1|2)( (1|2|a)){0,3}"]
REGEXES += ["((a|b|c) ?)+", "(|a)b?", "1( 1)+", "a(bc)*", "", "^a[^b]$", ".{0,2}", "(?i)AB"]


def go(automaton: ByteAutomaton, text: bytes, state: int) -> int:
    for byte in text:
        state = DEAD if state == DEAD else int(automaton.steps[state, byte])
    return state


@pytest.mark.parametrize("regex", REGEXES)
def test_every_word_and_no_other(regex):
    automaton = byte_automaton(Language(regex, exact=True))
    for length in range(4):
        for parts in itertools.product(TOKENS, repeat=length):
            text, state = b"".join(parts), go(automaton, b"".join(parts), 0)
            try:
                matches = re.fullmatch(regex, text.decode()) is not None
            except UnicodeDecodeError:
                matches = False
            assert (state != DEAD and automaton.accepting[state]) == matches, text


@pytest.mark.parametrize("regex", [r for r in REGEXES if not r.startswith("^")])
def test_as_outlines_reads_it(regex):
    """Over tokens of one byte and more, which lead through states where none may end."""
    vocabulary = outlines_core.Vocabulary(99, {token: [i] for i, token in enumerate(TOKENS)})
    index, automaton = outlines_core.Index(regex, vocabulary), byte_automaton(Language(regex))
    transitions, final = index.get_transitions(), index.get_final_states()
    for length in range(4):
        for tokens in itertools.product(range(len(TOKENS)), repeat=length):
            theirs, ours = index.get_initial_state(), 0
            for token in tokens:
                theirs = transitions.get(theirs, {}).get(token)
                ours = go(automaton, TOKENS[token], ours)
                ours = DEAD if ours != DEAD and automaton.passing[ours] else ours
            assert (ours != DEAD and bool(automaton.accepting[ours])) == (theirs in final), tokens


@pytest.mark.parametrize("regex", ["(?=a)b", r"(a)\1", "a(b", "[a", r"\bab", "^a$|^b$", "a)(b", r"a\z"])
@pytest.mark.parametrize("exact", [False, True])
def test_what_no_automaton_can_follow_is_refused(regex, exact):
    if regex == "a)(b" and exact:
        pytest.skip("what is exact is written by us")
    with pytest.raises(SettingError, match="regex="):
        byte_automaton(Language(regex, exact))


def test_anchors_at_the_ends_say_nothing():
    for regex, bare in (("^abc$", "abc"), (r"a\$", r"a\$"), ("[$^]a", "[$^]a"), (r"a\\$", r"a\\")):
        found, want = byte_automaton(Language(regex)), byte_automaton(Language(bare))
        assert (found.steps == want.steps).all() and (found.accepting == want.accepting).all()
