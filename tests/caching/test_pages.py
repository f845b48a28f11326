"""The page ledger, alone: fresh, partly refreshed, stale, and how old."""

import numpy as np
import pytest

from vllm_dllm.caching import PageLedger

REASONS = ("entropy", "age", "interval")


def new_ledger(length=20, page_size=8) -> PageLedger:
    """Three pages, of 8, 8 and 4 tokens, all just refreshed."""
    pages = PageLedger(length, page_size, reasons=REASONS)
    pages.record(pages.queries(np.empty(0, np.int32)))
    return pages


def queries(*positions) -> np.ndarray:
    return np.asarray(positions, np.int32)


def test_every_page_is_stale_before_the_first_pass():
    pages = PageLedger(20, 8)
    assert pages.num_pages == 3 and pages.stale.all() and pages.marks["first pass"] == 3
    first = pages.queries(queries(19))
    assert first.tolist() == list(range(20))
    pages.record(first)
    assert not pages.stale.any() and not pages.partly.any() and pages.age().tolist() == [0, 0, 0]


def test_a_stale_page_is_recomputed_whole_and_then_fresh():
    pages = new_ledger()
    pages.mark(np.asarray([2]), "entropy")
    assert pages.stale.tolist() == [False, False, True] and pages.num_stale == 1
    chosen = pages.queries(queries(1, 9, 17))
    assert chosen.tolist() == [1, 9, 16, 17, 18, 19]
    pages.record(chosen)
    assert not pages.stale.any()
    assert pages.partly.tolist() == [True, True, False] and pages.age().tolist() == [1, 1, 0]


def test_a_page_that_happens_to_be_computed_whole_is_fresh():
    pages = new_ledger()
    pages.record(queries(3))
    pages.record(np.arange(8, dtype=np.int32))
    assert pages.partly.tolist() == [False, False, False] and pages.age().tolist() == [0, 2, 2]


def test_a_mark_is_counted_once_and_keeps_its_reason_until_the_page_is_recomputed():
    pages = new_ledger()
    pages.mark(np.asarray([0, 1]), "entropy")
    pages.record(queries(19))  # a pass that does not wait for them
    pages.mark(np.asarray([True, False, True]), "age")
    assert pages.marks["entropy"] == 2 and pages.marks["age"] == 1
    assert pages.marked_in.tolist()[:2] == [1, 1] and pages.marked_in[2] == 2
    pages.mark_all("interval")
    assert pages.marks["interval"] == 0


def test_after_all_is_forgotten_no_pass_leaves_anything_out():
    pages = new_ledger()
    under_way = pages.clock
    pages.forget("interval")
    assert pages.queries(queries(3), refresh=False).tolist() == list(range(20))
    pages.record(queries(*range(20)), under_way)  # planned before, so it does not count
    assert pages.queries(queries(3), refresh=False).tolist() == list(range(20))
    pages.record(queries(*range(20)))
    assert pages.queries(queries(3)).tolist() == [3]


def test_an_unknown_reason_is_refused():
    with pytest.raises(ValueError, match="'mood', which is not among the reasons first pass, reset, entropy"):
        new_ledger().mark_all("mood")


def test_a_mark_made_while_a_pass_is_under_way_stays():
    pages = new_ledger()
    pages.mark(np.asarray([0]), "entropy")
    planned, clock = pages.queries(queries()), pages.clock
    pages.mark(np.asarray([0, 1]), "age")
    pages.record(planned, clock)
    assert pages.stale.tolist() == [True, True, False] and pages.age().tolist() == [0, 1, 1]
    pages.check_integrity()
    pages.record(pages.queries(queries()))
    assert not pages.stale.any()


def test_what_does_not_exist_is_neither_stale_nor_computed():
    pages = PageLedger(20, 8, end=10, reasons=REASONS)
    assert pages.stale.tolist() == [True, True, False] and pages.marks["first pass"] == 2
    first = pages.queries(queries(3))
    assert first.tolist() == list(range(10))
    pages.record(first)
    pages.mark_all("interval")
    assert pages.num_stale == 2 and pages.queries(queries()).tolist() == list(range(10))
    pages.record(pages.queries(queries()))
    pages.check_integrity()


def test_a_pass_computes_what_the_canvas_has_grown_by():
    pages = PageLedger(20, 8, end=10, reasons=REASONS)
    pages.record(pages.queries(queries()))
    pages.grow(18)
    assert pages.stale.tolist() == [False, False, True], "a page that exists now was never written"
    assert pages.queries(queries(3)).tolist() == [3, *range(10, 18)]
    assert pages.queries(queries(3), refresh=False).tolist() == [3, *range(10, 18)], "nor can they wait"
    pages.record(pages.queries(queries(3)))
    assert not pages.stale.any() and pages.partly.tolist() == [True, True, False]
    assert pages.queries(queries(3)).tolist() == [3]
    pages.grow(18)
    pages.grow(20)
    assert pages.queries(queries(3)).tolist() == [3, 18, 19] and not pages.num_stale
    pages.check_integrity()


def test_check_integrity_sees_a_ledger_that_was_tampered_with():
    for name, value in [("stale", False), ("refreshed_in", 7), ("marked_in", 7), ("sizes", 9)]:
        pages = PageLedger(20, 8)
        pages.check_integrity()
        getattr(pages, name)[1] = value
        with pytest.raises(AssertionError):
            pages.check_integrity()


def test_against_a_record_of_every_position():
    """Random marks and passes, against the pass in which each position was last computed."""
    rng = np.random.default_rng(3)
    for _ in range(60):
        length, page_size = int(rng.integers(1, 100)), int(rng.choice([1, 4, 32]))
        pages = PageLedger(length, page_size, reasons=REASONS)
        last, whole, stale = np.full(length, -1), {}, set(range(pages.num_pages))
        page_of = np.arange(length) // page_size
        for step in range(12):
            if rng.random() < 0.4:
                marked = np.flatnonzero(rng.random(pages.num_pages) < 0.3)
                pages.mark(marked, str(rng.choice(REASONS)))
                stale |= set(marked.tolist())
            wanted = np.flatnonzero(rng.random(length) < 0.5).astype(np.int32)
            chosen = pages.queries(wanted)
            assert chosen.tolist() == [p for p in range(length) if page_of[p] in stale or p in wanted]
            pages.record(chosen)
            last[chosen] = step
            for page in range(pages.num_pages):
                computed = last[page_of == page] == step
                if computed.all():
                    whole[page] = step
                assert pages.partly[page] == (last[page_of == page] > whole[page]).any()
                assert pages.age()[page] == step - whole[page]
            stale.clear()
            assert not pages.stale.any()
            pages.check_integrity()
