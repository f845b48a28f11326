"""Formats are built in processes of their own, which may fail, alone."""

import os
import time
from concurrent.futures import wait

import pytest
from format_cases import small_vocabulary

from vllm_dllm.constraints.format import Format
from vllm_dllm.formats.asked import Asked
from vllm_dllm.formats.automaton import Automaton
from vllm_dllm.formats.build import MOST_STATES, Spelling, build
from vllm_dllm.formats.builder import Builder
from vllm_dllm.loaded_formats import KEPT, LoadedFormats
from vllm_dllm.messages import Admitted, Edits
from vllm_dllm.options import SettingError

SLOW = Asked("regex", "((a{0,90}){0,90}){0,90}b")


@pytest.fixture
def builder():
    made = Builder(lambda: small_vocabulary("tiny-llada"), seconds=1.5, memory=1 << 30)
    yield made
    made.close()


def test_a_format_is_built_once(builder):
    first = builder.submit(Asked("choice", ("yes", "yesterday")))
    assert builder.known(Asked("choice", ("no",))) is None
    found = first.result()
    assert (
        builder.submit(Asked("choice", ("yes", "yesterday")))
        is first
        is builder.known(Asked("choice", ("yes", "yesterday")))
    )
    assert found.shortest == 3 and found.states == Automaton.unpack(found.packed).num_states


def test_what_takes_too_long_is_refused_and_holds_nobody_back(builder):
    builder.submit(Asked("regex", "a")).result()
    began = time.monotonic()
    slow = builder.submit(SLOW)
    others = [builder.submit(Asked("regex", f"a{{{n}}}")) for n in range(1, 9)]
    assert not wait(others, 10).not_done and time.monotonic() - began < 10
    with pytest.raises(SettingError, match="more than 1.5 s to build"):
        slow.result(20)
    assert builder.known(SLOW) is None  # it is tried again
    assert builder.submit(Asked("regex", "b")).result().shortest == 1


def test_what_takes_too_much_is_refused():
    builder = Builder(lambda: small_vocabulary("tiny-llada"), seconds=60, memory=300 << 20)
    try:
        with pytest.raises(SettingError, match="must be smaller"):
            builder.submit(Asked("regex", "(a|b)*a(a|b){24}")).result()
        assert builder.submit(Asked("regex", "b")).result().shortest == 1
    finally:
        builder.close()


def test_what_is_too_large_is_refused_with_its_number():
    with pytest.raises(SettingError, match=f"32769 states is not allowed: it must have at most {MOST_STATES}"):
        build(Asked("regex", "(a|b)*a(a|b){14}c").language(), Spelling(small_vocabulary("tiny-llada")))


def test_a_format_without_words(builder):
    for asked in (Asked("choice", ("é",)), Asked("regex", "é+")):
        with pytest.raises(SettingError, match="no sequence of the model's tokens"):
            builder.submit(asked).result()


def test_the_processes_end(builder):
    builder.submit(Asked("regex", "a")).result()
    (helper,) = builder._idle
    helper.connection.close()  # as when this process dies
    helper.process.wait(10)
    builder._idle.clear()
    with pytest.raises(ProcessLookupError):
        os.kill(helper.process.pid, 0)


def admitting(constraint: Format) -> Edits:
    return Edits(admitted=Admitted(constraint.key, None, None, None))


def test_the_worker_has_what_it_needs_and_not_much_more(builder):
    """Each format's classes are sent once, and dropped when many others have come since and no request uses them."""
    loaded, held, there = LoadedFormats(), [], set()
    packed = [builder.submit(Asked("regex", f"a{{{n}}}")).result().packed for n in range(1, KEPT + 9)]
    for n, part in enumerate([*packed, *packed[-3:]]):
        constraint = loaded.constraint(str(packed.index(part)), part)
        if n in (0, 5):
            held.append(constraint)
        tables, dropped = loaded.exchange([admitting(constraint), None, *map(admitting, held)])
        assert not there & set(tables) and set(dropped) <= there
        there = (there | set(tables)) - set(dropped)
        assert {constraint.key, *(c.key for c in held)} <= there and len(there) <= KEPT + 2
    assert set(loaded.exchange([None])[0]) == set()
