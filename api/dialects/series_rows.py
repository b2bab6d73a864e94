"""Rows of a series as exchanges give them, the forming candle last."""

from abc import ABC, abstractmethod
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import numpy as np
from typing_extensions import override

from api.dialects.printing import PrintedRows, joined
from api.responses.block_cache import Rows
from api.responses.block_loader import Blocks, EncodeRequest
from api.responses.stream import Delivery
from mdp_core.domain.candles import COLUMNS, Candle, Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Grid, Int64s, Interval
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
from mdp_core.service.candles import CandleService
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


class _HasTimes(Protocol):
    """Rows in some form, ascending."""

    @property
    def time(self) -> Int64s:
        """Open times, epoch ms."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...


R = TypeVar("R", bound=_HasTimes)


class _Form(ABC, Generic[R]):
    """A form of rows: candles, or text."""

    @abstractmethod
    async def read(self, answer: Answer) -> R:
        """Read the closed rows of an answer."""

    @abstractmethod
    def joined(self, rows: R, candle: Candles) -> R:
        """Return rows with one candle behind them."""

    @abstractmethod
    def newest(self, rows: R, count: int) -> R:
        """Return the last `count` rows, or all."""


class _AsCandles(_Form[Candles]):
    def __init__(self, service: CandleService) -> None:
        self._service = service

    @override
    async def read(self, answer: Answer) -> Candles:
        block = await self._service.read(answer, answer.stored, COLUMNS)
        return Candles.concatenate([block.candles, answer.edge])

    @override
    def joined(self, rows: Candles, candle: Candles) -> Candles:
        return Candles.concatenate([rows, candle])

    @override
    def newest(self, rows: Candles, count: int) -> Candles:
        return rows[-count:]


class _AsText(_Form[Rows]):
    def __init__(self, blocks: Blocks, printed: PrintedRows) -> None:
        self._blocks = blocks
        self._printed = printed

    @override
    async def read(self, answer: Answer) -> Rows:
        wanted = EncodeRequest(answer, self._printed, COLUMNS, is_patient=False)
        async with aclosing(Delivery(self._blocks, wanted).all_rows()) as parts:
            return joined([part async for part in parts])

    @override
    def joined(self, rows: Rows, candle: Candles) -> Rows:
        return joined([rows, self._printed.encode(candle, COLUMNS)])

    @override
    def newest(self, rows: Rows, count: int) -> Rows:
        return self._printed.newest(rows, count)


class SeriesRows:
    """The service's candles, with the forming one where an exchange gives it."""

    def __init__(self, services: Services, blocks: Blocks) -> None:
        self._services = services
        self._blocks = blocks

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

    async def printed(
        self, series: Series, bounds: Bounds, form: PrintedRows, context: RequestContext
    ) -> Rows | None:
        """Return the first rows from a start on, else the newest before the end, printed.

        The forming candle is a row like any other, and the last one.

        Returns:
            At most `bounds.limit` rows, ascending; None where the store has none to give for these
            bounds, so that the exchange has to be asked.

        Raises:
            MdpError: As `CandleService.get`.
        """
        bounds, text = replace(bounds, pages=_PAGES), _AsText(self._blocks, form)
        try:
            if narrow := _narrowed(bounds, series.grid, self.now()):
                found, _ = await self._with_forming(series, narrow, text, context)
                if len(found) == bounds.limit:
                    return found
            found, answer = await self._with_forming(series, bounds, text, context)
        except InvalidQuery:
            return None
        return None if _is_short(bounds, found, answer) else found

    async def candles(
        self, series: Series, bounds: Bounds, context: RequestContext
    ) -> tuple[Candles, Answer]:
        """Return the candles within bounds, a forming one too, and the answer.

        Raises:
            MdpError: As `CandleService.get`.
        """
        return await self._with_forming(series, bounds, _AsCandles(self._services.candles), context)

    async def _with_forming(
        self, series: Series, bounds: Bounds, form: _Form[R], context: RequestContext
    ) -> tuple[R, Answer]:
        closed, answer = await self._closed(series, bounds, form, context)
        forming: Candle | None = None
        for _ in range(_TURNS):
            if _is_short(bounds, closed, answer) or not self._reaches_now(bounds, closed, answer):
                return closed, answer
            forming = await self._forming(series)
            if forming is None or forming.time == answer.window.end:
                break
            closed, answer = await self._closed(series, bounds, form, context)
        if forming is None or not _is_next(forming, closed, bounds):
            return closed, answer
        both = form.joined(closed, _row(forming))
        return form.newest(both, bounds.limit) if bounds.limit else both, answer

    async def _closed(
        self, series: Series, bounds: Bounds, form: _Form[R], context: RequestContext
    ) -> tuple[R, Answer]:
        """Return the closed rows within bounds, and the answer that they are of."""
        service = self._services.candles
        try:
            answer = await service.get(series, bounds, context)
            return await form.read(answer), answer
        except SeriesRepaired:  # since its coverage was read
            answer = await service.get(series, bounds, context)
            return await form.read(answer), answer

    @staticmethod
    def _reaches_now(bounds: Bounds, closed: _HasTimes, answer: Answer) -> bool:
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


def _narrowed(bounds: Bounds, grid: Grid, now: datetime) -> Bounds | None:
    """Return bounds of as many slots as rows are wanted, None if there are no more.

    Where every slot has a candle they hold the same rows, and rows need not be counted first.
    """
    rows, until = bounds.limit, min(bounds.end or now, now)
    if rows is None:
        return None
    stop = grid.index(grid.ceil(until))
    if bounds.start is None:
        return replace(bounds, start=grid.at(stop - rows))
    first = grid.index(grid.ceil(bounds.start))
    return replace(bounds, end=grid.at(first + rows)) if first + rows < stop else None


def _is_next(forming: Candle, closed: _HasTimes, bounds: Bounds) -> bool:
    """Return whether a forming candle follows the closed ones, within the bounds."""
    if len(closed) and to_ms(forming.time) <= closed.time[-1]:
        return False
    begins, end = bounds.start or forming.time, bounds.end
    return forming.time >= begins and (end is None or forming.time < end)


def _is_short(bounds: Bounds, closed: _HasTimes, answer: Answer) -> bool:
    """Return whether there may be more rows, beyond what was looked through."""
    return answer.next is not None and bounds.limit is not None and len(closed) < bounds.limit


def _row(candle: Candle) -> Candles:
    def column(name: str) -> list[float]:
        value = getattr(candle, name)
        return [float("nan") if value is None else float(value)]

    time = np.array([to_ms(candle.time)], np.int64)
    numbers = (np.array(column(name), np.float64) for name in COLUMNS[1:])
    return Candles(time, *numbers)
