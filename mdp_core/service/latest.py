"""The newest candles: the last closed one, and the one that is still forming."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from weakref import WeakValueDictionary

from cachetools import LRUCache, TLRUCache

from mdp_core.domain.candles import COLUMNS, Candle
from mdp_core.domain.queries import Answer, Bounds, CandleQuery, Latest
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window, intersect
from mdp_core.errors import ExchangeUnavailable, MdpError, NoCandle, SeriesRepaired, copied
from mdp_core.exchanges.validation import validate
from mdp_core.fill.market import MarketContext
from mdp_core.logs import note
from mdp_core.ratelimit.context import RequestContext
from mdp_core.service.candles import CandleService
from mdp_core.storage.catalog.usage import Usage

# How far back the newest closed candle is looked for.
_PAGES_BACK = 10
# How many series are remembered at the most.
_MOST_SERIES = 10_000

# The outcome of asking for a forming candle, and until when (monotonic) it is shared.
_Shared = tuple[Latest | MdpError, float]


def _expires(_series: int, shared: _Shared, _now: float) -> float:
    return shared[1]


class LatestCandles:
    """Answers the newest candles; forming ones are shared for seconds, never stored."""

    def __init__(
        self,
        candles: CandleService,
        markets: Mapping[tuple[str, str], MarketContext],
        usage: Usage,
    ) -> None:
        self._candles = candles
        self._markets = markets
        self._usage = usage
        self._newest = LRUCache[int, tuple[Answer, Candle]](_MOST_SERIES)
        self._forming = TLRUCache[int, _Shared](_MOST_SERIES, _expires, time.monotonic)
        self._asking = WeakValueDictionary[int, asyncio.Lock]()

    async def closed(self, query: CandleQuery, subject: str = "") -> Latest:
        """Return the newest closed candle, wherever it comes from.

        Raises:
            NoCandle: There is none within ten pages.
            MdpError: As `CandleService.get`.
        """
        context = self._candles.interactive(subject)
        series = await self._candles.resolve(query, context)
        now = await self._market(series).exchange_clock.now(context)
        newest = self._newest.get(series.id)
        if newest and await self._is_newest(newest[0], now):
            self._usage.note(series.id, at_edge=True)
        else:
            newest = await self._find(series, query, context)
        answer, candle = newest
        note(window=str(answer.window))
        if answer.is_final and not answer.unconfirmed:
            self._newest[series.id] = newest
        is_settled = candle.time < answer.settled_until
        after = answer.window.clip(series.grid.next(candle.time), answer.window.end)
        doubts = intersect(answer.unconfirmed, after)
        return Latest(
            series, candle, closed=True, settled=is_settled, as_of=now, unconfirmed=doubts
        )

    async def _is_newest(self, answer: Answer, now: datetime) -> bool:
        """Return whether no candle has closed since, and none has changed."""
        is_current = answer.window.end == answer.series.grid.floor(now)
        return is_current and await self._candles.holds(answer)

    async def _find(
        self, series: Series, bounds: Bounds, context: RequestContext
    ) -> tuple[Answer, Candle]:
        try:
            return await self._find_once(series, bounds, context)
        except SeriesRepaired:  # since its coverage was read
            return await self._find_once(series, bounds, context)

    async def _find_once(
        self, series: Series, bounds: Bounds, context: RequestContext
    ) -> tuple[Answer, Candle]:
        answer = await self._candles.get(
            series, replace(bounds, limit=1, pages=_PAGES_BACK), context
        )
        found = answer.edge
        if not len(found):
            found = (await self._candles.read(answer, answer.stored, COLUMNS)).candles
        if not len(found):
            raise NoCandle(str(answer.series), f"since {answer.window.start.isoformat()}")
        return answer, found.row(-1)

    async def forming(self, query: CandleQuery, subject: str = "") -> Latest:
        """Return the candle that is still forming, some seconds old at the most.

        Callers within those seconds share the outcome, a failure too.

        Raises:
            NoCandle: The exchange has none yet.
            MdpError: The series is unknown, or the exchange can't be asked.
        """
        context = self._candles.interactive(subject)
        series = await self._candles.resolve(query, context)
        self._usage.note(series.id, at_edge=True)
        room = self._market(series).adapter.room
        known, _ = self._forming.get(series.id, (None, 0.0))
        with nullcontext() if known else room.place(context):
            latest = known or await self._ask_once(series, context)
        if isinstance(latest, MdpError):
            raise copied(latest)
        return latest

    async def _ask_once(self, series: Series, context: RequestContext) -> Latest | MdpError:
        """Return the outcome that all callers of some seconds share."""
        async with self._asking.setdefault(series.id, asyncio.Lock()):
            latest, _ = self._forming.get(series.id, (None, 0.0))
            if latest is None or await self._is_over(latest, context):
                latest = await self._ask_in_time(series, context)
                seconds = self._market(series).adapter.facts.forming_seconds
                self._forming[series.id] = (latest, time.monotonic() + seconds)
        return latest

    async def _is_over(self, latest: Latest | MdpError, context: RequestContext) -> bool:
        """Return whether a candle that was forming when it was asked for has closed."""
        if isinstance(latest, MdpError):
            return False
        now = await self._market(latest.series).exchange_clock.now(context)
        return latest.series.grid.floor(now) > latest.candle.time

    async def _ask_in_time(self, series: Series, context: RequestContext) -> Latest | MdpError:
        """Ask the exchange; a failure is an outcome that is shared like any other."""
        try:
            async with asyncio.timeout_at(context.deadline):
                return await self._ask(series, context)
        except TimeoutError:
            return ExchangeUnavailable(series.exchange, "did not tell the forming candle in time")
        except MdpError as error:
            return error

    async def _ask(self, series: Series, context: RequestContext) -> Latest:
        market = self._market(series)
        now = await market.exchange_clock.now(context)
        window = Window(series.grid.floor(now), series.grid.next(now))
        note(window=str(window))
        adapter = market.adapter.bound(context)
        rows = await adapter.fetch_page(series.symbol, series.interval, window)
        right = validate(rows, series.grid, window).candles
        if not len(right):
            raise NoCandle(str(series), "forming now")
        return Latest(series, right.row(-1), closed=False, settled=False, as_of=now)

    def _market(self, series: Series) -> MarketContext:
        return self._markets[series.exchange, series.symbol.market_type]
