"""Search for history starts, for exchanges that can't be asked for them.

The days come first: all pages of daily candles, which are few, tell when the symbol was traded
first. Lone candles may lie before the first daily one (seen: up to 181 days), so the hours before
it are looked through, 200 days at a time, until such a stretch holds none. Of a finer interval only
the pages around the first hour are looked at, and a few before it at doubling distances.

What lies up to 200 days before the first candle that was found is not taken for empty
(`Series.believed_start`). Every page that is looked at goes through the service: it is stored, and
an empty one was asked for twice.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from mdp_core.domain.clock import from_ms
from mdp_core.domain.intervals import Interval
from mdp_core.domain.queries import Bounds
from mdp_core.domain.series import DOUBTED_BEFORE, Series
from mdp_core.domain.windows import Window
from mdp_core.errors import BadRows
from mdp_core.exchanges.clock import EARLIEST
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.service.candles import CandleService
from mdp_core.storage.candles.candle_store import CandleStore

# Each look takes seconds where it finds nothing, since that is asked for twice: so into so many
# parts at once, which takes half as long as two and one and a half times the requests.
_PARTS = 4
# Finer intervals are looked for only around what this one shows.
_COARSE = Interval.ONE_HOUR
_FINER = frozenset(list(Interval)[: list(Interval).index(_COARSE)])


class HistorySearch:
    """Finds where series begin, and has the catalog know."""

    def __init__(
        self,
        candles: CandleService,
        store: CandleStore,
        resolver: SeriesResolver,
        markets: Mapping[tuple[str, str], MarketContext],
    ) -> None:
        self._candles = candles
        self._store = store
        self._resolver = resolver
        self._markets = markets

    async def find(self, series: Series, since: datetime | None = None) -> datetime | None:
        """Give the open time of the series' first candle and keep it; None: none so far.

        Args:
            series: On its own grid.
            since: What lies before is of no interest: if the symbol's first daily candle does, that
                is given, and nothing is searched for or kept. None: all is.

        Raises:
            MdpError: The exchange could not be asked; what was seen is stored.
        """
        begins = await self._first_daily(series)
        if begins is None or series.interval is Interval.ONE_DAY:
            return begins
        if since is not None and begins <= since:
            return begins
        begins = await self._first_of(series, begins)
        if begins is not None:
            await self._resolver.learn_history_start(series, begins)
        return begins

    async def _first_of(self, series: Series, first_day: datetime) -> datetime | None:
        offered = self._market(series).adapter.facts.intervals
        if series.interval in _FINER and _COARSE in offered:
            hour = await self._first_hour(series, first_day)
            return None if hour is None else await self._around(series, hour)
        return await self._stretch_by_stretch(series, first_day)

    async def _first_hour(self, series: Series, first_day: datetime) -> datetime | None:
        """Give when the symbol's first hourly candle opens; it is looked for only once."""
        hourly = await self._sibling(series, _COARSE)
        if hourly.history_start is not None:
            return hourly.history_start
        begins = await self._stretch_by_stretch(hourly, first_day)
        if begins is not None:
            await self._resolver.learn_history_start(hourly, begins)
        return begins

    async def _first_daily(self, series: Series) -> datetime | None:
        """Give when the symbol's first daily candle opens; it is looked for only once."""
        daily = await self._sibling(series, Interval.ONE_DAY)
        if daily.history_start is None and (begins := await self._search_days(daily)):
            await self._resolver.learn_history_start(daily, begins)
            return begins
        return daily.history_start

    async def _sibling(self, series: Series, interval: Interval) -> Series:
        symbol, context = series.symbol, RequestContext.at(Priority.BACKFILL)
        words = (symbol.exchange, symbol.market_type, symbol.name, interval.value)
        return await self._resolver.series(*words, context)

    async def _search_days(self, daily: Series) -> datetime | None:
        first, stop = await self._pages(daily)
        pages = [self._page(daily, index) for index in range(first, stop)]
        found = await asyncio.gather(*(self._first_candle(daily, page) for page in pages))
        return next(filter(None, found), None)

    async def _stretch_by_stretch(self, series: Series, first_day: datetime) -> datetime | None:
        """Look through the pages before the first day, until a long stretch is empty."""
        lowest, page = await self._first_found(series, first_day)
        if page is None:
            return None
        stretch = self._index(series, first_day) - self._index(series, first_day - DOUBTED_BEFORE)
        while pages := range(max(page - stretch, lowest), page):
            firsts = await asyncio.gather(*(self._first_in(series, entry) for entry in pages))
            full = [entry for entry, first in zip(pages, firsts, strict=True) if first is not None]
            if not full:
                break
            page = full[0]
        return await self._first_in(series, page)

    async def _around(self, series: Series, hour: datetime) -> datetime | None:
        """Look where a coarser interval begins; before it pages are sampled.

        Where one of those has a candle (seen: minutes of half a year before the first hour) the
        search goes on there.
        """
        lowest, page = await self._first_found(series, hour)
        if page is None:
            return None
        lowest = max(lowest, self._index(series, hour - DOUBTED_BEFORE))
        while (earlier := await self._sampled(series, lowest, page)) is not None:
            page = await self._lowest_found(series, lowest - 1, earlier)
        return await self._first_in(series, page)

    async def _lowest_found(self, series: Series, empty: int, found: int) -> int:
        """Search between a page that counts as empty and one that isn't, in equal parts."""
        while found - empty > 1:
            parts = {empty + (found - empty) * part // _PARTS for part in range(1, _PARTS)}
            pages: list[int] = sorted(parts - {empty})
            firsts = await asyncio.gather(*(self._first_in(series, page) for page in pages))
            full: list[int] = [
                page for page, first in zip(pages, firsts, strict=True) if first is not None
            ]
            found = min([*full, found])
            empty = max([empty, *(page for page in pages if page < found)])
        return found

    async def _sampled(self, series: Series, lowest: int, page: int) -> int | None:
        """Probe before `page` at doubling distances; return the first page with a candle."""
        distances = (1 << power for power in range(max(page - lowest, 0).bit_length()))
        pages = [page - distance for distance in distances]
        firsts = await asyncio.gather(*(self._first_in(series, entry) for entry in pages))
        full = [entry for entry, first in zip(pages, firsts, strict=True) if first is not None]
        return min(full, default=None)

    async def _first_found(self, series: Series, time: datetime) -> tuple[int, int | None]:
        """Number the first possible page, and the first from `time` on with a candle."""
        lowest, stop = await self._pages(series)
        for page in range(self._index(series, time), stop):
            if await self._first_in(series, page) is not None:
                return lowest, page
        return lowest, None

    async def _first_in(self, series: Series, page: int) -> datetime | None:
        return await self._first_candle(series, self._page(series, page))

    async def _first_candle(self, series: Series, window: Window) -> datetime | None:
        """Return when the first candle opens; a wrong one counts: it was traded then.

        Raises:
            MdpError: A part of `window` could not be had.
        """
        bounds = Bounds(start=window.start, end=window.end, partial=True)
        context = RequestContext.at(Priority.BACKFILL)
        answer = await self._candles.get(series, bounds, context)
        for gap in answer.missing:
            if not isinstance(gap.error, BadRows):
                raise gap.error
        first = (await self._store.read(series.id, window)).time[:1].tolist()
        refused = await self._store.rejected_slots(series.id, window)
        return min([*map(from_ms, first), *refused[:1]], default=None)

    async def _pages(self, series: Series) -> tuple[int, int]:
        """Number the first page that can have candles, and the one after the last."""
        watermarks = await self._market(series).watermarks(
            series, None, RequestContext.at(Priority.BACKFILL)
        )
        return self._index(series, EARLIEST), self._index(series, watermarks.settled_until) + 1

    def _index(self, series: Series, time: datetime) -> int:
        return series.grid.index(time) // self._market(series).page_size

    def _page(self, series: Series, index: int) -> Window:
        size = self._market(series).page_size
        return Window(series.grid.at(index * size), series.grid.at((index + 1) * size))

    def _market(self, series: Series) -> MarketContext:
        return self._markets[series.exchange, series.symbol.market_type]
