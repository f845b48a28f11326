"""The page ledger: what one request's KV pages hold, and which of them the next pass recomputes."""

import numpy as np

PAGE_SIZE = 32  # tokens, unless set: as small as vLLM's CPU attention allows
NEVER = -1
# why a page is stale; `first pass`: nothing has been written to it yet
REASONS = ("first pass", "block start", "interval", "entropy", "age", "drift", "reset")


class PageLedger:
    """The state of each page of a canvas, in passes.

        prompt                            response
        | t t t t t t t t | t t t t m m m m | m m m m m m m m | m m m m |     a page of 8 tokens, a last, shorter one
          fresh             partly            stale             fresh

    - **fresh**: recomputed whole in pass `refreshed_in`, and nothing in it since.
    - **partly** refreshed: a later pass recomputed some of its positions.
    - **stale**: marked, with a reason. The next pass recomputes it whole, and then it is fresh.

    Every page is stale at first: it holds what another request left there.
    """

    def __init__(self, length: int, page_size: int = PAGE_SIZE):
        self.length = length
        self.page_size = page_size
        self.num_pages = -(-length // page_size)
        self.sizes = np.full(self.num_pages, page_size)
        self.sizes[-1] = length - page_size * (self.num_pages - 1)
        self.passes = 0  # recorded so far
        self.refreshed_in = np.full(self.num_pages, NEVER, np.int32)
        self.partly = np.zeros(self.num_pages, bool)
        self.stale = np.zeros(self.num_pages, bool)
        self.marked_in = np.full(self.num_pages, NEVER, np.int32)  # the pass before which a stale page was marked
        self.marks = dict.fromkeys(REASONS, 0)  # pages marked so far, by reason
        self.mark_all("first pass")

    def mark(self, pages: np.ndarray, reason: str) -> None:
        """Mark `pages` (page numbers or a boolean for each page) stale. One that already is keeps its mark."""
        fresh = np.zeros(self.num_pages, bool)
        fresh[pages] = True
        fresh &= ~self.stale
        self.stale |= fresh
        self.marked_in[fresh] = self.passes
        self.marks[reason] += int(np.count_nonzero(fresh))

    def mark_all(self, reason: str) -> None:
        self.mark(np.arange(self.num_pages), reason)

    def note_refresh(self, reason: str) -> None:
        """The worker recomputed the whole canvas by its own decision, inside the pass just recorded."""
        self.marks[reason] += self.num_pages
        self.refreshed_in[:] = self.passes - 1
        self.partly[:] = False

    @property
    def num_stale(self) -> int:
        return int(np.count_nonzero(self.stale))

    @property
    def unwritten(self) -> bool:
        """Whether a page still holds what another request left there."""
        return bool((self.refreshed_in == NEVER).any())

    @property
    def oldest_mark(self) -> int:
        """Passes since the longest-waiting stale page was marked; -1 if none is stale."""
        return int((self.passes - self.marked_in[self.stale]).max(initial=-1))

    def age(self) -> np.ndarray:
        """Passes since each page was last recomputed whole; 0 right after."""
        return self.passes - 1 - self.refreshed_in

    def queries(self, positions: np.ndarray) -> np.ndarray:
        """int32, ascending: `positions` (ascending) and every position of the stale pages."""
        stale = self.num_stale
        if not stale:
            return positions
        if stale == self.num_pages:
            return np.arange(self.length, dtype=np.int32)
        chosen = np.repeat(self.stale, self.sizes)
        chosen[positions] = True
        return np.flatnonzero(chosen).astype(np.int32)

    def record(self, queries: np.ndarray) -> None:
        """A pass recomputed the canvas positions `queries`."""
        if len(queries) == self.length:
            whole: np.ndarray | slice = slice(None)
        else:
            counts = np.bincount(queries // self.page_size, minlength=self.num_pages)
            self.partly |= counts > 0
            whole = counts == self.sizes
        self.refreshed_in[whole] = self.passes
        self.partly[whole] = False
        self.stale[whole] = False
        self.passes += 1

    def check_integrity(self) -> None:
        """Raise AssertionError unless the arrays agree with each other."""
        assert self.sizes.sum() == self.length and (self.sizes > 0).all(), "pages do not cover the canvas"
        never = self.refreshed_in == NEVER
        assert self.stale[never].all(), "a page that was never written is not stale"
        assert (self.refreshed_in < self.passes).all(), "a page was refreshed in a pass that is yet to come"
        assert (self.marked_in[self.stale] >= self.refreshed_in[self.stale]).all(), "a refreshed page is still stale"
        assert (self.marked_in <= self.passes).all(), "a page was marked in a pass that is yet to come"
        assert sum(self.marks.values()) >= self.num_stale, "a page is stale and was not marked"
