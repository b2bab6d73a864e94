"""Rows of a series as exchanges give them, the forming candle last."""

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from mdp_core.domain.candles import COLUMNS, Candle, Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval
from mdp_core.domain.queries import Answer, Bounds, CandleQuery
from mdp_core.domain.series import Series
from mdp_core.errors import (
    InvalidQuery,
    NoCandle,
    SeriesRepaired,
    UnknownSymbol,
    UnsupportedInterval,
)
from mdp_core.ratelimit.context import RequestContext
from mdp_core.wiring import Services

# A candle may close, and the next one begin, between the two questions.
_TURNS = 3
# The longest answer has four pages; behind a silence that is longer the exchange finds it at once.
_PAGES = 10


@dataclass(frozen=True, slots=True)
class NativeName:
    """A series as the exchange names it."""

    exchange: str
    market_type: str
    native: str
    interval: Interval


class SeriesRows:
    """The service's candles, with the forming one where an exchange gives it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def series(self, name: NativeName, context: RequestContext) -> Series | None:
        """Return the series of that name; None: the store does not list it."""
        words = (name.exchange, name.market_type, name.native, name.interval.value)
        try:
            series = await self._services.resolver.series(*words, context)
        except (UnknownSymbol, UnsupportedInterval):
            return None
        return series if series.symbol.native == name.native else None

    def now(self) -> datetime:
        """Return the time by our own clock."""
        return self._services.settings.clock()

    async def exchange_time(
        self, exchange: str, market_type: str, context: RequestContext
    ) -> datetime:
        """Return the exchange's time as it is known here.

        Raises:
            ExchangeError: Nothing is known of it.
        """
        market = self._services.markets[exchange, market_type]
        return await market.exchange_clock.now(context)

    async def rows(self, series: Series, bounds: Bounds, context: RequestContext) -> Candles | None:
        """Return the first rows from a start on, else the newest before the end.

        The forming candle is a row like any other, and the last one.

        Returns:
            At most `bounds.limit` rows, ascending; None where the store has none to give for these
            bounds, so that the exchange has to be asked.

        Raises:
            MdpError: As `CandleService.get`.
        """
        bounds = replace(bounds, pages=_PAGES)
        try:
            found, answer = await self.with_forming(series, bounds, context)
        except InvalidQuery:
            return None
        return None if _is_short(bounds, found, answer) else found

    async def with_forming(
        self, series: Series, bounds: Bounds, context: RequestContext
    ) -> tuple[Candles, Answer]:
        """Return the rows within bounds, and the answer of the closed ones.

        Raises:
            MdpError: As `CandleService.get`.
        """
        closed, answer = await self.closed(series, bounds, context)
        forming: Candle | None = None
        for _ in range(_TURNS):
            if _is_short(bounds, closed, answer) or not self._reaches_now(bounds, closed, answer):
                return closed, answer
            forming = await self._forming(series)
            if forming is None or forming.time == answer.window.end:
                break
            closed, answer = await self.closed(series, bounds, context)
        return self._with(closed, forming, bounds), answer

    async def closed(
        self, series: Series, bounds: Bounds, context: RequestContext
    ) -> tuple[Candles, Answer]:
        """Return the closed candles within bounds, and the answer that they are of.

        Raises:
            MdpError: As `CandleService.get`.
        """
        try:
            return await self._closed(series, bounds, context)
        except SeriesRepaired:  # since its coverage was read
            return await self._closed(series, bounds, context)

    async def _closed(
        self, series: Series, bounds: Bounds, context: RequestContext
    ) -> tuple[Candles, Answer]:
        candles = self._services.candles
        answer = await candles.get(series, bounds, context)
        block = await candles.read(answer, answer.stored, COLUMNS)
        return Candles.concatenate([block.candles, answer.edge]), answer

    @staticmethod
    def _reaches_now(bounds: Bounds, closed: Candles, answer: Answer) -> bool:
        """Return whether rows that are still forming belong to the answer."""
        end, reached = bounds.end, answer.window.end
        if end is not None and end <= reached:
            return False
        is_full = bounds.limit is not None and len(closed) >= bounds.limit
        return bounds.start is None or not is_full

    async def _forming(self, series: Series) -> Candle | None:
        symbol = series.symbol
        query = CandleQuery(
            exchange=symbol.exchange,
            market_type=symbol.market_type,
            symbol=symbol.native,
            interval=series.interval.value,
        )
        try:
            return (await self._services.edge.forming(query)).candle
        except NoCandle:
            return None

    @staticmethod
    def _with(closed: Candles, forming: Candle | None, bounds: Bounds) -> Candles:
        """Put the forming candle behind the closed ones, if it lies within the bounds."""
        if forming is None or (len(closed) and to_ms(forming.time) <= closed.time[-1]):
            return closed
        begins, end = bounds.start or forming.time, bounds.end
        if forming.time < begins or (end is not None and forming.time >= end):
            return closed
        both = Candles.concatenate([closed, _row(forming)])
        return both[-bounds.limit :] if bounds.limit else both


def _is_short(bounds: Bounds, closed: Candles, answer: Answer) -> bool:
    """Return whether there may be more rows, beyond what was looked through."""
    return answer.next is not None and bounds.limit is not None and len(closed) < bounds.limit


def _row(candle: Candle) -> Candles:
    def column(name: str) -> list[float]:
        value = getattr(candle, name)
        return [float("nan") if value is None else float(value)]

    time = np.array([to_ms(candle.time)], np.int64)
    numbers = (np.array(column(name), np.float64) for name in COLUMNS[1:])
    return Candles(time, *numbers)
