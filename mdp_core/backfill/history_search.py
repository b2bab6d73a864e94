"""Find history starts by bisection, for exchanges that can't be asked for them.

The days come first: all pages of daily candles, which are few, tell when the symbol was traded
first. The series' own pages are then bisected up to that day. Sparse candles may lie far before
the dense ones, and even before the first daily one (seen), so the pages before what was found are
sampled too, at doubling distances, until nothing turns up any more. Every page that is looked at
goes through the service: it is stored, and an empty one was asked for twice.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from mdp_core.domain.clock import from_ms
from mdp_core.domain.intervals import Interval
from mdp_core.domain.queries import Bounds
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.errors import BadRows
from mdp_core.exchanges.clock import EARLIEST
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.service.candles import CandleService
from mdp_core.storage.candles.candle_store import CandleStore

_ROUNDS = 64
# Each look takes seconds where it finds nothing, since that is asked for twice: so into so many
# parts at once, which takes half as long as two and one and a half times the requests.
_PARTS = 4


class HistorySearch:
    """Finds where series begin, and has the catalog know."""

    def __init__(
        self,
        candles: CandleService,
        store: CandleStore,
        metadata: SeriesResolver,
        markets: Mapping[tuple[str, str], MarketContext],
    ) -> None:
        self._candles = candles
        self._store = store
        self._metadata = metadata
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
        begins = await self._bisect(series, begins)
        if begins is not None:
            await self._metadata.learn_history_start(series, begins)
        return begins

    async def _first_daily(self, series: Series) -> datetime | None:
        """Give when the symbol's first daily candle opens; it is looked for only once."""
        symbol, day = series.symbol, Interval.ONE_DAY.value
        context = RequestContext.at(Priority.BACKFILL)
        daily = await self._metadata.series(
            symbol.exchange, symbol.market_type, symbol.name, day, context
        )
        if daily.history_start is None and (begins := await self._search_days(daily)):
            await self._metadata.learn_history_start(daily, begins)
            return begins
        return daily.history_start

    async def _search_days(self, daily: Series) -> datetime | None:
        first, stop = await self._pages(daily)
        pages = [self._page(daily, index) for index in range(first, stop)]
        found = await asyncio.gather(*(self._first_candle(daily, page) for page in pages))
        return next(filter(None, found), None)

    async def _bisect(self, series: Series, first_day: datetime) -> datetime | None:
        """Search the series' own pages, from the earliest that can be to the first day's."""
        lowest, stop = await self._pages(series)
        page = self._index(series, first_day)
        while page < stop and await self._first_in(series, page) is None:
            page += 1
        if page == stop:
            return None
        for _ in range(_ROUNDS):
            page = await self._lowest_found(series, lowest - 1, page)
            earlier = await self._sampled(series, lowest, page)
            if earlier is None:
                return await self._first_in(series, page)
            page = earlier
        return None

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
        firsts = await asyncio.gather(*(self._first_in(series, each) for each in pages))
        full = [each for each, first in zip(pages, firsts, strict=True) if first is not None]
        return min(full, default=None)

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
        for each in answer.missing:
            if not isinstance(each.error, BadRows):
                raise each.error
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
