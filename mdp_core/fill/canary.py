"""A question with a known answer, which tells a silent exchange from an empty one.

An empty answer proves something only between two canaries that gave rows. They are shared by all
series of an exchange and market type.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from mdp_core.domain.intervals import Grid, Interval
from mdp_core.domain.series import Series, Symbol
from mdp_core.domain.windows import Window
from mdp_core.errors import BadPayload, ExchangeRejected
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.exchanges.clock import ExchangeClock
from mdp_core.exchanges.validation import judge
from mdp_core.ratelimit.context import RequestContext
from mdp_core.storage.candles.known_candles import KnownCandles

# How long before an empty answer its canary may have been asked at the most.
_RECENT_SECONDS = 10.0
# How far inside the retention its candle must lie.
_INSIDE_SLOTS = 10


@dataclass(frozen=True, slots=True)
class _Sign:
    """The result of a canary that was asked at `asked_at` (monotonic)."""

    asked_at: float
    is_alive: bool


@dataclass(frozen=True, slots=True)
class _CanaryQuestion:
    """A window of a series that is known to hold a candle."""

    symbol: Symbol
    interval: Interval
    grid: Grid
    time: datetime

    @property
    def window(self) -> Window:
        return Window(self.time, self.grid.next(self.time))


class Canary:
    """Asks an exchange for known candles, each `apart_seconds` after the last."""

    def __init__(
        self,
        adapter: ExchangeAdapter,
        exchange_clock: ExchangeClock,
        known: KnownCandles,
        apart_seconds: float,
    ) -> None:
        self._adapter = adapter
        self._clock = exchange_clock
        self._known = known
        self._apart_seconds = apart_seconds
        self._lock = asyncio.Lock()
        self._last: _Sign | None = None

    async def knows(self, series: Series, window: Window) -> bool:
        """Return whether a candle of a window is stored: that answers as well as a canary."""
        return await self._known.holds(series.id, window)

    async def precedes(self, series: Series, context: RequestContext) -> bool:
        """Return whether a canary of the last ten seconds gave rows; asks one if need be.

        Raises:
            ExchangeError: The exchange can't be asked.
        """
        last = self._last
        if last and last.is_alive and last.asked_at >= time.monotonic() - _RECENT_SECONDS:
            return True
        return await self.follows(series, time.monotonic() - self._apart_seconds, context)

    async def follows(self, series: Series, since: float, context: RequestContext) -> bool:
        """Return whether a canary that was asked after `since` (monotonic) gave rows.

        Raises:
            ExchangeError: The exchange can't be asked.
        """
        async with self._lock:
            if self._last and self._last.asked_at >= since:
                return self._last.is_alive
            if self._last:
                await asyncio.sleep(self._last.asked_at + self._apart_seconds - time.monotonic())
            asked_at = time.monotonic()
            self._last = _Sign(asked_at, await self._is_alive(series, context))
            return self._last.is_alive

    async def _is_alive(self, series: Series, context: RequestContext) -> bool:
        """Ask for the first candle that is known."""
        async with aclosing(self._questions(series, context)) as questions:
            async for question in questions:
                return await self._answers(question, context)
        return await self._reference_answers(context)

    async def _questions(
        self, series: Series, context: RequestContext
    ) -> AsyncGenerator[_CanaryQuestion]:
        """Yield what is known to exist, the nearest first."""
        facts = self._adapter.facts
        for symbol, interval, opens in await self._known.newest(series):
            is_own = (symbol.native, interval) == (series.symbol.native, series.interval)
            grid = series.grid if is_own else facts.intervals[interval].grid
            question = _CanaryQuestion(symbol, interval, grid, opens)
            if await self._is_remembered(question, context):
                yield question
        if series.history_start and facts.supports_first_candle:
            question = _CanaryQuestion(
                series.symbol, series.interval, series.grid, series.history_start
            )
            if await self._is_remembered(question, context):
                yield question

    async def _is_remembered(self, question: _CanaryQuestion, context: RequestContext) -> bool:
        if self._adapter.facts.retention_candles is None:
            return True
        inside = question.grid.index(question.time) - _INSIDE_SLOTS
        return question.grid.at(inside) >= await self._clock.remembered_from(question.grid, context)

    async def _answers(self, question: _CanaryQuestion, context: RequestContext) -> bool:
        adapter, window = self._adapter.bound(context), question.window
        try:
            rows = await adapter.fetch_page(question.symbol, question.interval, window)
            return judge(rows, question.grid, window, adapter.facts).is_live
        except (BadPayload, ExchangeRejected):
            return False

    async def _reference_answers(self, context: RequestContext) -> bool:
        adapter = self._adapter.bound(context)
        if adapter.facts.reference_symbol is None:
            return False
        try:
            rows = await adapter.fetch_newest(adapter.facts.reference_symbol, Interval.ONE_HOUR)
        except (BadPayload, ExchangeRejected):
            return False
        return len(rows) > 0
