"""The page ledger: what one request's KV pages hold, and which of them the next pass recomputes."""

import numpy as np

PAGE_SIZE = 32  # tokens, unless set: as small as vLLM's CPU attention allows
NEVER = -1
FIRST, RESET = "first pass", "reset"  # why a page is stale, where no policy says it


class PageLedger:
    """The state of each page of a canvas, in passes.

        prompt                            response
        | t t t t t t t t | t t t t m m m m | m m m m m m m m | m m m m |     a page of 8 tokens, a last, shorter one
          fresh             partly            stale             fresh

    - **fresh**: recomputed whole in pass `refreshed_in`, and nothing in it since.
    - **partly** refreshed: a later pass recomputed some of its positions.
    - **stale**: marked, with a reason. The next pass recomputes it whole, and then it is fresh.

    Every page is stale at first: it holds what another request left there. A page of which nothing exists yet
    (`end`) has no state: it becomes stale when the canvas grows into it. Pages are marked while a pass is under
    way, too: `clock` tells those marks from the ones that the pass was planned for.

    A partial pass makes no stale page fresh where none is stale. Such passes are kept as they came, and booked all at
    once when somebody asks how fresh pages are, which most policies never do.
    """

    def __init__(
        self,
        length: int,
        page_size: int = PAGE_SIZE,
        end: int | None = None,
        reasons: tuple[str, ...] = (),
        computed: int = 0,
    ):
        """`end`: how far the canvas exists; None: all of it. `reasons`: what pages are marked for, besides ours.
        `computed`: positions whose keys and values are there already, from another request: whole pages."""
        self.length = length
        self.page_size = page_size
        self.num_pages = -(-length // page_size)
        self._starts = np.arange(self.num_pages) * page_size
        self.passes = 0  # recorded so far
        self.computed_to = computed  # every position before this has been computed
        self._found = np.arange(self.num_pages) < computed // page_size  # pages that are another request's too
        self.clock = 0  # how often pages were marked
        self._forgotten_at = 0  # the clock when nothing that had been computed held any more
        self._refreshed_in = np.full(self.num_pages, NEVER, np.int32)
        self._partly = np.zeros(self.num_pages, bool)
        self._unbooked: list[np.ndarray] = []  # what the last passes computed
        self.stale = np.zeros(self.num_pages, bool)
        self.num_stale = 0
        self.marked_in = np.full(self.num_pages, NEVER, np.int32)  # the pass before which a stale page was marked
        self._marked_at = np.zeros(self.num_pages, np.int64)  # the clock then
        self.marks = dict.fromkeys((FIRST, RESET, *reasons), 0)  # pages marked so far, by reason
        self._reasons = list(self.marks)
        self._marked_for = np.zeros(self.num_pages, np.int8)  # and what for, as a place in `_reasons`
        self.end = 0
        self.sizes = np.zeros(self.num_pages, np.int64)  # of each page, the positions that exist
        self.grow(length if end is None else end)

    def grow(self, end: int) -> None:
        """The canvas exists up to `end` from now on, if not further."""
        if end <= self.end:
            return
        self._book()
        new = self.sizes == 0
        self.end = end
        self.sizes = np.clip(end - self._starts, 0, self.page_size)
        self.mark(new & (self.sizes > 0) & ~self._found, FIRST)

    def mark(self, pages: np.ndarray, reason: str) -> None:
        """Mark `pages` (page numbers or a boolean for each page) stale. One that already is keeps its first mark's
        pass and reason. Raises ValueError for a reason that was not announced."""
        marked = np.zeros(self.num_pages, bool)
        marked[pages] = True
        self._mark(marked & (self.sizes > 0), reason)

    def mark_all(self, reason: str) -> None:
        self._mark(self.sizes > 0, reason)

    def _mark(self, marked: np.ndarray, reason: str) -> None:
        """The same for pages that exist, a boolean for each page."""
        if reason not in self.marks:
            raise ValueError(f"a page is marked for {reason!r}, which is not among the reasons {', '.join(self.marks)}")
        self.clock += 1
        self._marked_at[marked] = self.clock
        marked = marked & ~self.stale
        self.stale |= marked
        self.marked_in[marked] = self.passes
        self._marked_for[marked] = self._reasons.index(reason)
        more = int(np.count_nonzero(marked))
        self.num_stale += more
        self.marks[reason] += more

    def forget(self, reason: str) -> None:
        """Nothing that was computed holds any more: all is stale, and no pass may leave any of it out."""
        self.mark_all(reason)
        self.computed_to = 0
        self._forgotten_at = self.clock

    def uncompute(self, start: int) -> None:
        """The tokens from `start` on are others now: what was computed of them does not hold."""
        self.computed_to = min(self.computed_to, start)

    def reason(self, page: int) -> str:
        """What a stale page was marked for."""
        return self._reasons[self._marked_for[page]]

    def note_refresh(self, reason: str) -> None:
        """The worker recomputed the whole canvas by its own decision, inside the pass just recorded."""
        self._book()
        exists = self.sizes > 0
        self.marks[reason] += int(np.count_nonzero(exists))
        self._refreshed_in[exists] = self.passes - 1
        self._partly[:] = False

    @property
    def refreshed_in(self) -> np.ndarray:
        """The pass in which each page was last recomputed whole; -1: never."""
        self._book()
        return self._refreshed_in

    @property
    def partly(self) -> np.ndarray:
        """Whether a pass behind that one has recomputed some of the page."""
        self._book()
        return self._partly

    @property
    def oldest_mark(self) -> int:
        """Passes since the longest-waiting stale page was marked; -1 if none is stale."""
        return int((self.passes - self.marked_in[self.stale]).max(initial=-1))

    def age(self) -> np.ndarray:
        """Passes since each page was last recomputed whole; 0 right after."""
        return self.passes - 1 - self.refreshed_in

    def queries(self, positions: np.ndarray, refresh: bool = True, end: int | None = None) -> np.ndarray:
        """Ascending: `positions` (ascending), every position that was never computed and, with `refresh`,
        every position of the stale pages; below `end`, if the pass goes no further."""
        end = self.end if end is None else end
        stale = self.num_stale if refresh else 0
        if stale and stale == np.count_nonzero(self.sizes):
            return np.arange(end)
        if not stale and self.computed_to >= end:
            return positions
        chosen = np.zeros(end, bool)
        if stale:
            chosen[:] = np.repeat(self.stale, self.sizes)[:end]
        chosen[self.computed_to :] = True
        chosen[positions] = True
        return chosen.nonzero()[0]

    def record(self, queries: np.ndarray, clock: int | None = None, end: int | None = None) -> None:
        """A pass recomputed the canvas positions `queries`, and went as far as `end`. It was planned when `clock` was what
        is given, or now."""
        clock = self.clock if clock is None else clock
        end = self.end if end is None else end
        if len(queries) == self.end:
            self._unbooked.clear()  # it makes up for all of them
            whole = self.sizes > 0
            self._refreshed_in[whole] = self.passes
            self._partly[whole] = False
            self._make_fresh(whole, clock)
        elif self.num_stale:
            self._book()
            self._make_fresh(self._book_pass(queries, self.passes), clock)
        else:
            self._unbooked.append(queries)
        if clock >= self._forgotten_at:
            self.computed_to = max(self.computed_to, end)
        self.passes += 1

    def _make_fresh(self, whole: np.ndarray, clock: int) -> None:
        """The pages that are `whole` were recomputed in a pass that was planned at `clock`."""
        again = whole & (self._marked_at > clock)  # marked while the pass was under way
        self.stale[whole & ~again] = False
        self.marked_in[again] = self.passes
        self.num_stale = int(np.count_nonzero(self.stale))

    def _book(self) -> None:
        """Book the passes that were kept."""
        passes, self._unbooked = self._unbooked, []
        for number, queries in enumerate(passes, self.passes - len(passes)):
            self._book_pass(queries, number)

    def _book_pass(self, queries: np.ndarray, number: int) -> np.ndarray:
        """Pass `number` recomputed the `queries`, not all there are: the pages that it recomputed whole."""
        counts = np.bincount(queries // self.page_size, minlength=self.num_pages)
        self._partly |= counts > 0
        whole = (counts == self.sizes) & (counts > 0)
        self._refreshed_in[whole] = number
        self._partly[whole] = False
        return whole

    def check_integrity(self) -> None:
        """Raise AssertionError unless the arrays agree with each other."""
        exists = self.sizes > 0
        never = self.refreshed_in == NEVER
        assert self.sizes.sum() == self.end <= self.length, "pages do not cover the canvas"
        assert self.computed_to <= self.end, "positions were computed that do not exist"
        assert not self.stale[~exists].any() and never[~exists].all(), "a page that does not exist has a state"
        assert self.stale[never & exists & ~self._found].all(), "a page that was never written is not stale"
        assert (self.refreshed_in < self.passes).all(), "a page was refreshed in a pass that is yet to come"
        assert (self.marked_in[self.stale] >= self.refreshed_in[self.stale]).all(), "a refreshed page is still stale"
        assert (self.marked_in <= self.passes).all(), "a page was marked in a pass that is yet to come"
        assert self.num_stale == np.count_nonzero(self.stale), "stale pages were miscounted"
        assert (self._marked_at <= self.clock).all(), "a page was marked later than now"
        assert sum(self.marks.values()) >= self.num_stale, "a page is stale and was not marked"
