"""The newest candles: the last closed one, and the one that is still forming."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from mdp_core.domain.candles import COLUMNS, Candle
from mdp_core.domain.queries import Answer, CandleQuery, Latest
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window, intersect
from mdp_core.errors import ExchangeUnavailable, MdpError, NoCandle, SeriesRepaired
from mdp_core.exchanges.validation import sift
from mdp_core.fill.market import MarketContext
from mdp_core.logs import note
from mdp_core.series.resolver import SeriesResolver
from mdp_core.service.candles import CandleService
from mdp_core.storage.catalog.usage import Usage

# How far back the newest closed candle is looked for.
_PAGES_BACK = 10


class LatestCandles:
    """Answers what is newest; forming candles are shared for some seconds and never stored."""

    def __init__(
        self,
        candles: CandleService,
        metadata: SeriesResolver,
        markets: Mapping[tuple[str, str], MarketContext],
        usage: Usage,
        *,
        deadline_seconds: float,
    ) -> None:
        self._candles = candles
        self._metadata = metadata
        self._markets = markets
        self._usage = usage
        self._deadline_seconds = deadline_seconds
        self._newest: dict[int, tuple[Answer, Candle]] = {}
        self._forming: dict[int, tuple[Latest | MdpError, float]] = {}
        self._asking: dict[int, asyncio.Lock] = {}

    async def closed(self, query: CandleQuery) -> Latest:
        """Give the newest closed candle, wherever it comes from.

        Raises:
            NoCandle: There is none within ten pages.
            MdpError: As `CandleService.get`.
        """
        series = await self._metadata.series(
            query.exchange, query.market_type, query.symbol, query.interval
        )
        note(series=str(series))
        now = await self._market(series).exchange_clock.now()
        newest = self._newest.get(series.id)
        if newest and await self._is_newest(newest[0], now):
            self._usage.note(series.id, at_edge=True)
        else:
            newest = await self._find(query)
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
        """Tell whether no candle has closed since, and none of those before was repaired."""
        is_current = answer.window.end == answer.series.grid.floor(now)
        return is_current and await self._candles.holds(answer)

    async def _find(self, query: CandleQuery) -> tuple[Answer, Candle]:
        try:
            return await self._find_once(query)
        except SeriesRepaired:  # since its coverage was looked at
            return await self._find_once(query)

    async def _find_once(self, query: CandleQuery) -> tuple[Answer, Candle]:
        answer = await self._candles.get(replace(query, limit=1, pages=_PAGES_BACK))
        found = answer.edge
        if not len(found):
            found = (await self._candles.read(answer, answer.stored, COLUMNS)).candles
        if not len(found):
            raise NoCandle(str(answer.series), f"since {answer.window.start.isoformat()}")
        return answer, found.row(-1)

    async def forming(self, query: CandleQuery) -> Latest:
        """Give the candle that is still forming, some seconds old at the most.

        What came of asking the exchange is told to all who ask within those seconds, a failure too.

        Raises:
            NoCandle: The exchange has none yet.
            MdpError: The series is unknown, or the exchange can't be asked.
        """
        series = await self._metadata.series(
            query.exchange, query.market_type, query.symbol, query.interval
        )
        self._usage.note(series.id, at_edge=True)
        note(series=str(series))
        async with self._asking.setdefault(series.id, asyncio.Lock()):
            latest, until = self._forming.get(series.id, (None, 0.0))
            if latest is None or time.monotonic() >= until:
                latest = await self._ask_in_time(series)
                seconds = self._market(series).adapter.facts.forming_seconds
                self._forming[series.id] = (latest, time.monotonic() + seconds)
        if isinstance(latest, MdpError):
            raise latest.with_traceback(None)
        return latest

    async def _ask_in_time(self, series: Series) -> Latest | MdpError:
        """Ask; a failure is an outcome that is shared like any other."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await self._ask(series)
        except TimeoutError:
            return ExchangeUnavailable(series.exchange, "did not tell the forming candle in time")
        except MdpError as error:
            return error

    async def _ask(self, series: Series) -> Latest:
        market = self._market(series)
        now = await market.exchange_clock.now()
        window = Window(series.grid.floor(now), series.grid.next(now))
        note(window=str(window))
        rows = await market.adapter.fetch_page(series.symbol, series.interval, window)
        right = sift(rows, series.grid, window).candles
        if not len(right):
            raise NoCandle(str(series), "forming now")
        return Latest(series, right.row(-1), closed=False, settled=False, as_of=now)

    def _market(self, series: Series) -> MarketContext:
        return self._markets[series.exchange, series.symbol.market_type]
