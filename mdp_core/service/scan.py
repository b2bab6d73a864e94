"""Find the rows of an answer: look them up, fill the gaps, look them up again.

The first round is the lookup: one query tells what of the window is covered and when the last of
the wanted rows opens, and where nothing is missing up to there, that is the answer. Else the scan
takes a part of the window, seen from the end where the rows are wanted, that is as long as the
rows that are still wanted: so many slots are needed in any case, so no page is fetched in vain.
What the part lacks is filled, and it is looked up again, until it holds the rows. Where it holds
fewer it grows by what is lacking; after a growth without any row by twice as much as before, or a
long silence would take as many rounds as it has pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdp_core.domain.candles import COLUMNS, Candles
from mdp_core.domain.queries import CacheState, Missing
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, intersect, subtract
from mdp_core.errors import (
    ExchangeUnavailable,
    HistoryUnavailable,
    MdpError,
    WindowTooLarge,
    copied,
)
from mdp_core.fill.filler import Failure
from mdp_core.fill.market import MarketContext
from mdp_core.fill.pages import Page, plan
from mdp_core.fill.provisional import ProvisionalRange
from mdp_core.ratelimit.context import RequestContext
from mdp_core.service.scan_request import ScanRequest, ScanResult
from mdp_core.storage.candles.candle_reader import CandleReader, CoverageSnapshot, Doubts

# The live edge moves on while pages are filled, and provisional ranges expire.
_ROUNDS = 4

# The lookup searches so many times as many slots as rows are wanted: enough where few trade, and a
# bound for how many chunks the query has to open.
_SPARSE = 16


@dataclass(frozen=True, slots=True)
class _KnownRows:
    """The knowledge of a part: its gaps, its rows, and the rows that may still change.

    `count` and `last` tell of stored rows before the `edge`, as a `CoverageSnapshot` does.
    """

    part: Window
    gaps: Sequence[Window]
    snapshot: CoverageSnapshot
    edge: Candles
    doubts: Sequence[Doubts]

    @property
    def rows(self) -> int:
        """The number of rows, as far as they were counted."""
        return self.snapshot.count + len(self.edge)


class RowScan:
    """One request's way through the window that it asked for."""

    def __init__(
        self,
        reader: CandleReader,
        market: MarketContext,
        watermarks: Watermarks,
        request: ScanRequest,
        context: RequestContext,
    ) -> None:
        self._reader = reader
        self._market = market
        self._watermarks = watermarks
        self._request = request
        self._context = context
        self._series, self._grid = request.series, request.series.grid
        self._scope = request.asked.clip(watermarks.history_start, watermarks.closed_until)
        self._fits = self._slots([self._scope]) <= request.rows
        self._pages_left = request.pages
        self._ranges: list[ProvisionalRange] = []
        self._failures: list[Failure] = []
        self._slots_wanted = 0
        self._slots_missing = 0
        self._found: _KnownRows | None = None

    async def look_up(self) -> ScanResult | None:
        """Return the answer if one query of the store gives it, else None."""
        search = self._request.take(self._scope, _SPARSE * self._request.rows)
        self._found = known = await self._known(search)
        window = self._answer(known)
        return None if window is None or intersect(known.gaps, window) else self._result(known)

    async def scan(self) -> ScanResult:
        """Fill and look up until the rows are found, or no page may be fetched any more.

        Raises:
            WindowTooLarge: More pages are needed than may be fetched, seen from the start.
            ExchangeError: A page could not be had, and `partial` is off.
        """
        request = self._request
        known, rows, growth = self._found, 0, request.rows
        part = request.take(self._scope, request.rows)
        if known and not known.gaps:
            part = known.part  # all of it is stored: only what comes after it can lack
        while True:
            try:
                known = await self._fill(part, known)
            except WindowTooLarge:
                if known is None or self._pages_left == request.pages:
                    raise
                return self._result(known)  # the answer ends here, and says where it goes on
            if self._answer(known) or self._is_over(known, part):
                return self._result(known)
            growth = request.rows - known.rows if known.rows > rows else 2 * growth
            rows = known.rows
            part = request.take(self._scope, self._slots([part]) + growth)

    def _is_over(self, known: _KnownRows, part: Window) -> bool:
        """Return whether no more may be fetched, or the end of the part could not be had."""
        return known.part != part or self._pages_left <= 0 or bool(self._failures)

    def _answer(self, known: _KnownRows) -> Window | None:
        """Return the window that ends with the last wanted row; None: rows are lacking."""
        asked, rows, count = self._request.asked, self._request.rows, known.snapshot.count
        edge, last = known.edge, known.snapshot.last
        if known.part == self._scope and (self._fits or known.rows < rows):
            return asked
        if known.rows < rows:
            return None
        if self._request.from_end:
            start = edge.row(len(edge) - rows).time if len(edge) >= rows else last
            return Window(start or asked.start, asked.end)
        end = last if count >= rows else edge.row(rows - count - 1).time
        return Window(asked.start, self._grid.next(end) if end else asked.end)

    async def _fill(self, part: Window, known: _KnownRows | None) -> _KnownRows:
        """Have the store or a provisional range hold `part`, or what may be fetched of it.

        Args:
            part: On the grid.
            known: The knowledge of a part that may hold this one.
        """
        if known is None or not _holds(known.part, part):
            known = await self._known(part)
        gaps = intersect(known.gaps, part)
        self._slots_wanted = self._slots([part])
        self._slots_missing += self._slots(gaps)
        part = self._within_pages(self._within_retention(part, gaps), gaps)
        rounds = 0
        while pages := self._plan(intersect(known.gaps, part)):
            if rounds == _ROUNDS:
                what = "changes faster than it can be followed"
                raise ExchangeUnavailable(self._series.exchange, what)
            known = await self._fill_pages(part, pages)
            part = self._within_retention(part, known.gaps)
            rounds += 1
        return known if known.part == part else await self._known(part)

    async def _fill_pages(self, part: Window, pages: Sequence[Page]) -> _KnownRows:
        with self._context.upstream.waiting():
            failures = await self._market.filler.fill(
                self._series, pages, self._watermarks, self._context
            )
        self._pages_left -= len(pages)
        self._watermarks = self._market.ranges.remembered(self._series, self._watermarks)
        known = await self._known(part)
        if (error := _reason(known.gaps, failures)) and not self._request.partial:
            raise copied(error)
        self._failures += failures
        return known

    def _plan(self, gaps: Sequence[Window]) -> list[Page]:
        """Plan the pages for gaps, but for those that failed already."""
        failed = {failure.page.index for failure in self._failures}
        pages = plan(gaps, self._grid, self._market.page_size, self._watermarks)
        return [page for page in pages if page.index not in failed]

    def _within_pages(self, part: Window, gaps: Sequence[Window]) -> Window:
        """Shorten a part to what may be fetched; from the start it must not end early.

        An answer that ends early would be taken for all there is; one that goes back from the end
        says by its start how far.
        """
        pages = self._plan(intersect(gaps, part))
        if len(pages) <= self._pages_left:
            return part
        if not self._request.from_end:
            raise WindowTooLarge(len(pages), self._pages_left)
        return part.clip(pages[-self._pages_left].window.start, part.end)

    def _within_retention(self, part: Window, gaps: Sequence[Window]) -> Window:
        """Shorten a part to what the exchange still has; from the start that is refused."""
        watermarks = self._watermarks
        unfetchable = Window(watermarks.history_start, watermarks.retention_start)
        forgotten = intersect(intersect(gaps, part), unfetchable)
        if not forgotten or self._request.partial:
            return part
        available = forgotten[-1].end
        if available >= part.end:  # the whole part is gone: name what comes after it
            available = watermarks.retention_start
        if not self._request.from_end:
            raise HistoryUnavailable(self._series.exchange, available)
        return part.clip(min(available, part.end), part.end)

    async def _known(self, part: Window) -> _KnownRows:
        """Look up a part: what is covered or provisional, and how many rows it has."""
        fresh = self._market.ranges.fresh(self._series, part)
        self._ranges = [*fresh, *(old for old in self._ranges if old not in fresh)]
        stored = self._before_ranges(part)
        edge, gaps, doubts = await self._edge(Window(stored.end, part.end), fresh)
        snapshot = await self._snapshot(stored, len(edge))
        all_doubts = [snapshot.doubts, doubts]
        return _KnownRows(part, [*snapshot.missing, *gaps], snapshot, edge, all_doubts)

    async def _snapshot(self, stored: Window, edge_rows: int) -> CoverageSnapshot:
        """Look up stored rows; they are counted only where more may come than are wanted."""
        series_id, rows = self._series.id, self._request.rows
        if self._fits:
            return await self._reader.snapshot(series_id, stored)
        if not self._request.from_end:
            return await self._reader.first_rows(series_id, stored, rows)
        if edge_rows >= rows:
            return await self._reader.snapshot(series_id, Window(stored.end, stored.end))
        return await self._reader.last_rows(series_id, stored, rows - edge_rows)

    async def _edge(
        self, window: Window, fresh: Sequence[ProvisionalRange]
    ) -> tuple[Candles, list[Window], Doubts]:
        """Return rows, gaps and doubts of a window that begins with a provisional range."""
        doubts = Doubts()
        provisional = [part.window for part in fresh]
        candles = [part.candles.inside(window) for part in self._ranges]
        gaps = subtract([window] if not window.is_empty else [], provisional)
        if gaps:  # a page that ends with late slots may be followed by one that is covered
            snapshot = await self._reader.snapshot(self._series.id, window)
            gaps, doubts = subtract(snapshot.missing, provisional), snapshot.doubts
            stored = await self._reader.read(
                self._series.id, window, COLUMNS, epoch=snapshot.versions.epoch
            )
            candles.insert(0, stored.candles)
        return first_of_each_slot(Candles.concatenate(candles)), gaps, doubts

    def _before_ranges(self, window: Window) -> Window:
        """Return the part of a window that lies before every provisional range."""
        touching = [part for part in self._ranges if intersect([part.window], window)]
        ends = min((part.window.start for part in touching), default=window.end)
        return window.clip(window.start, ends)

    def _slots(self, windows: Sequence[Window]) -> int:
        return sum(self._grid.count(window.start, window.end) for window in windows)

    def _result(self, known: _KnownRows) -> ScanResult:
        window = self._answer(known) or self._request.scanned(self._scope, known.part)
        stored = self._before_ranges(window)
        edge = known.edge.inside(Window(stored.end, window.end))
        missing = self._missing(known, window) if self._request.partial else []
        versions = known.snapshot.versions
        return ScanResult(window, stored, edge, missing, versions, self._cache, known.doubts)

    @property
    def _cache(self) -> CacheState:
        if not self._slots_missing:
            return "hit"
        return "miss" if self._slots_missing >= self._slots_wanted else "partial"

    def _missing(self, known: _KnownRows, window: Window) -> list[Missing]:
        # A provisional range that expired meanwhile is still part of the answer.
        provisional = [part.window for part in self._ranges]
        gaps = subtract(intersect(known.gaps, window), provisional)
        forgotten = Window(self._watermarks.history_start, self._watermarks.retention_start)
        parts = [*intersect(gaps, forgotten), *subtract(gaps, [forgotten])]
        return [Missing(part, self._error(part)) for part in sorted(parts)]

    def _error(self, gap: Window) -> MdpError:
        retention_start = self._watermarks.retention_start
        if gap.end <= retention_start:
            return HistoryUnavailable(self._series.exchange, retention_start)
        return _reason([gap], self._failures) or self._failures[0].error


def _holds(window: Window, part: Window) -> bool:
    return window.start <= part.start and part.end <= window.end


def _reason(gaps: Sequence[Window], failures: Sequence[Failure]) -> MdpError | None:
    """Return the reason for gaps, if it is that a page could not be filled."""
    hits = (failure.error for failure in failures if intersect(gaps, failure.page.window))
    return next(hits, None)


def first_of_each_slot(candles: Candles) -> Candles:
    """Return candles in order; of several at one time the first given stays."""
    if not len(candles):
        return candles
    _, first = np.unique(candles.time, return_index=True)
    return candles[first]
