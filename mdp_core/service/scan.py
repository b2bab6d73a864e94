"""Fill just as much of a window as holds the candles that were asked for.

A walk goes from one end of the window towards the other, in parts that are as long as the rows that
are still wanted; after a part without any candle the next one is twice as long. What a part lacks
is planned as pages and filled; nothing beyond is fetched.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from typing_extensions import override

from mdp_core.domain.candles import Candles
from mdp_core.domain.intervals import Grid
from mdp_core.domain.queries import CacheState, Missing
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, intersect, subtract
from mdp_core.errors import ExchangeUnavailable, HistoryUnavailable, MdpError, WindowTooLarge
from mdp_core.fill.filler import Failure
from mdp_core.fill.market import MarketContext
from mdp_core.fill.pages import Page, plan
from mdp_core.fill.provisional import ProvisionalRange
from mdp_core.ratelimit.context import RequestContext
from mdp_core.storage.candles.candle_store import CandleStore

# While pages are filled the live edge moves on, and what was asked there grows old.
_ROUNDS = 4


class Direction(ABC):
    """From which end of a window the rows are wanted."""

    @abstractmethod
    def split(self, left: Window, slots: int, grid: Grid) -> tuple[Window, Window]:
        """Split off a part of at most `slots` slots; give the part and what is left."""

    @abstractmethod
    def walked(self, asked: Window, left: Window) -> Window:
        """Give what was walked of `asked` when `left` is left of it."""

    @abstractmethod
    def bound(self, part: Window, pages: Sequence[Page], most: int) -> Window:
        """Shorten `part` so that it needs at most `most` of `pages`, or raise WindowTooLarge."""

    @abstractmethod
    def since(self, part: Window, available: datetime, exchange: str) -> Window:
        """Shorten `part` to what can still be had, or raise HistoryUnavailable."""

    @abstractmethod
    def position(self, rows: int, of: int) -> int:
        """Give the position, from the first of `of` candles, of the last of `rows` wanted ones."""

    @abstractmethod
    def cut(self, walked: Window, last_wanted: datetime, grid: Grid) -> Window:
        """Give the part of `walked` that ends, seen in this direction, with a candle."""


class FromStart(Direction):
    """The first rows are wanted."""

    @override
    def split(self, left: Window, slots: int, grid: Grid) -> tuple[Window, Window]:
        """Split off at the start."""
        middle = grid.at(min(grid.index(left.start) + slots, grid.index(left.end)))
        return Window(left.start, middle), Window(middle, left.end)

    @override
    def walked(self, asked: Window, left: Window) -> Window:
        """Give what lies before the rest."""
        return asked if left.is_empty else Window(asked.start, left.start)

    @override
    def bound(self, part: Window, pages: Sequence[Page], most: int) -> Window:
        """Refuse: an answer that ends early would be taken for all there is."""
        if len(pages) > most:
            raise WindowTooLarge(len(pages), most)
        return part

    @override
    def since(self, part: Window, available: datetime, exchange: str) -> Window:
        """Refuse: it was asked for by name."""
        raise HistoryUnavailable(exchange, available)

    @override
    def position(self, rows: int, of: int) -> int:
        """Count from the first candle."""
        del of
        return rows - 1

    @override
    def cut(self, walked: Window, last_wanted: datetime, grid: Grid) -> Window:
        """End right after it."""
        return Window(walked.start, grid.next(last_wanted))


class FromEnd(Direction):
    """The last rows are wanted."""

    @override
    def split(self, left: Window, slots: int, grid: Grid) -> tuple[Window, Window]:
        """Split off at the end."""
        middle = grid.at(max(grid.index(left.end) - slots, grid.index(left.start)))
        return Window(middle, left.end), Window(left.start, middle)

    @override
    def walked(self, asked: Window, left: Window) -> Window:
        """Give what lies after the rest."""
        return asked if left.is_empty else Window(left.end, asked.end)

    @override
    def bound(self, part: Window, pages: Sequence[Page], most: int) -> Window:
        """Go back only so far; the answer says how far."""
        if len(pages) <= most:
            return part
        return part.clip(pages[-most].window.start, part.end)

    @override
    def since(self, part: Window, available: datetime, exchange: str) -> Window:
        """Go back only so far; the answer says how far."""
        return part.clip(min(available, part.end), part.end)

    @override
    def position(self, rows: int, of: int) -> int:
        """Count from the last candle."""
        return of - rows

    @override
    def cut(self, walked: Window, last_wanted: datetime, grid: Grid) -> Window:
        """Start with it."""
        del grid
        return Window(last_wanted, walked.end)


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The outcome of a walk.

    `window` holds no more candles than were wanted: those of `stored` are in the store, `edge`
    holds those after it, which may still change. `missing` could not be had.
    """

    window: Window
    stored: Window
    edge: Candles
    missing: Sequence[Missing]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a walk is to find: `rows` candles of `asked`, fetching at most `pages`.

    With `partial` the walk goes on where a page can't be had.
    """

    asked: Window
    rows: int
    pages: int
    partial: bool
    context: RequestContext


class RowScan:
    """One request's way through the window that it asked for."""

    def __init__(
        self,
        store: CandleStore,
        market: MarketContext,
        series: Series,
        watermarks: Watermarks,
        wanted: Wanted,
    ) -> None:
        self._store = store
        self._market = market
        self._series = series
        self._watermarks = watermarks
        self._wanted = wanted
        self._pages_left = wanted.pages
        self._ranges: list[ProvisionalRange] = []
        self._failures: list[Failure] = []
        self._slots_wanted = 0
        self._slots_missing = 0

    @property
    def cache(self) -> CacheState:
        """How much of what was wanted had not to be asked for."""
        if not self._slots_missing:
            return "hit"
        return "miss" if self._slots_missing == self._slots_wanted else "partial"

    async def find(self, direction: Direction) -> ScanResult:
        """Walk until the rows are found, nothing is left, or no page may be fetched any more.

        Raises:
            WindowTooLarge: More pages are needed than may be fetched, seen from the start.
            ExchangeError: A page could not be had, and `partial` is off.
        """
        asked, rows, grid = self._wanted.asked, self._wanted.rows, self._series.grid
        left = asked.clip(self._watermarks.history_start, self._watermarks.closed_until)
        count, span = 0, rows
        while count < rows and not left.is_empty and self._pages_left > 0 and not self._failures:
            before_part = left
            part, left = direction.split(left, span, grid)
            try:
                filled = await self._fill(part, direction)
            except WindowTooLarge:
                if self._pages_left == self._wanted.pages:
                    raise
                left = before_part  # the answer ends here, and says where it goes on
                break
            if filled != part:
                self._pages_left, left = 0, Window(left.start, filled.start)
            walked = direction.walked(asked, left)
            if left.is_empty and grid.count(walked.start, walked.end) <= rows:
                return await self._found(walked)
            before, count = count, await self._count(walked)
            span = 2 * span if count == before else rows - count
        walked = direction.walked(asked, left)
        if count > rows or (count == rows and not left.is_empty):
            last_wanted = await self._open_time(walked, direction.position(rows, count))
            walked = direction.cut(walked, last_wanted, grid)
        return await self._found(walked)

    async def _fill(self, part: Window, direction: Direction) -> Window:
        """Have the store, or a fresh tail, hold `part` or what may be fetched of it."""
        gaps = await self._gaps(part)
        self._slots_wanted += self._slots([part])
        self._slots_missing += self._slots(gaps)
        part = self._within_memory(part, gaps, direction)
        part = direction.bound(part, self._plan(gaps), self._pages_left)
        for _ in range(_ROUNDS):
            pages = [page for page in self._plan(gaps) if page.window.end > part.start]
            if not pages:
                return part
            failures = await self._market.filler.fill(
                self._series, pages, self._watermarks, self._wanted.context
            )
            self._pages_left -= len(pages)
            self._watermarks = self._market.ranges.remembered(self._series, self._watermarks)
            gaps = await self._gaps(part)
            if (error := _reason(gaps, failures)) and not self._wanted.partial:
                raise error
            self._failures += failures
            part = self._within_memory(part, gaps, direction)
        if not self._plan(gaps):
            return part
        raise ExchangeUnavailable(self._series.exchange, "changes faster than it can be followed")

    def _plan(self, gaps: Sequence[Window]) -> list[Page]:
        """Plan the pages for gaps, but for those that failed already."""
        failed = {failure.page.index for failure in self._failures}
        pages = plan(gaps, self._series.grid, self._market.page_size, self._watermarks)
        return [page for page in pages if page.index not in failed]

    def _within_memory(self, part: Window, gaps: Sequence[Window], direction: Direction) -> Window:
        forgotten = intersect(
            gaps, Window(self._watermarks.history_start, self._watermarks.retention_start)
        )
        if not forgotten or self._wanted.partial:
            return part
        available = forgotten[-1].end
        if available >= part.end:  # nothing of `part` can be had, so tell of what comes after it
            available = self._watermarks.retention_start
        return direction.since(part, available, self._series.exchange)

    async def _gaps(self, window: Window) -> list[Window]:
        """Give what of `window` is neither stored nor in a tail; the tails are kept for reading."""
        inside = window.clip(self._watermarks.history_start, self._watermarks.closed_until)
        ranges = self._market.ranges.fresh(self._series, inside)
        gaps = await self._store.missing(self._series.id, inside)
        self._ranges = [
            *ranges,
            *(provisional for provisional in self._ranges if provisional not in ranges),
        ]
        return subtract(gaps, [provisional.window for provisional in ranges])

    def _slots(self, windows: Sequence[Window]) -> int:
        return sum(self._series.grid.count(window.start, window.end) for window in windows)

    async def _found(self, window: Window) -> ScanResult:
        stored, edge = await self._parts(window)
        missing: list[Missing] = []
        if self._wanted.partial:
            # A tail that grew old meanwhile is still part of the answer.
            gaps = subtract(
                await self._gaps(window), [provisional.window for provisional in self._ranges]
            )
            forgotten = Window(self._watermarks.history_start, self._watermarks.retention_start)
            parts = [*intersect(gaps, forgotten), *subtract(gaps, [forgotten])]
            missing = [self._missing(part) for part in sorted(parts)]
        return ScanResult(window, stored, edge, missing)

    async def _parts(self, window: Window) -> tuple[Window, Candles]:
        """Part a window where finality ends: what is stored before, and the candles after."""
        ranges = [
            provisional
            for provisional in self._ranges
            if not provisional.window.clip(window.start, window.end).is_empty
        ]
        if not ranges:
            return window, Candles.empty()
        final_until = min(provisional.window.start for provisional in ranges)
        stored = window.clip(window.start, final_until)
        after = Window(stored.end, window.end)
        parts = [await self._store.read(self._series.id, after)]
        parts += [provisional.candles.inside(after) for provisional in ranges]
        return stored, _first_of_each_slot(Candles.concatenate(parts))

    async def _count(self, window: Window) -> int:
        stored, edge = await self._parts(window)
        return await self._store.count(self._series.id, stored) + len(edge)

    async def _open_time(self, window: Window, position: int) -> datetime:
        """Give the open time of the candle at `position` in `window`, counted from its first."""
        stored, edge = await self._parts(window)
        if (time := await self._store.open_time(self._series.id, stored, position)) is not None:
            return time
        before = await self._store.count(self._series.id, stored)
        return edge.row(position - before).time

    def _missing(self, gap: Window) -> Missing:
        if gap.end <= self._watermarks.retention_start:
            return Missing(
                gap, HistoryUnavailable(self._series.exchange, self._watermarks.retention_start)
            )
        return Missing(gap, _reason([gap], self._failures) or self._failures[0].error)


def _reason(gaps: Sequence[Window], failures: Sequence[Failure]) -> MdpError | None:
    """Give why there are gaps, if it is for a page that could not be filled."""
    return next((each.error for each in failures if intersect(gaps, each.page.window)), None)


def _first_of_each_slot(candles: Candles) -> Candles:
    """Put candles in order; of several at one time the first given stays."""
    _, first = np.unique(candles.time, return_index=True)
    return candles[first]
