"""The exchange's "now", and with it what can be asked for and what is final."""

import asyncio
import contextvars
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from mdp_core.domain.clock import Clock
from mdp_core.domain.intervals import Grid
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.errors import ExchangeError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext

# No exchange of today sold anything before that.
EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)

# Clocks drift by milliseconds an hour.
_OFFSET_KEPT_SECONDS = 600.0
# What an exchange remembers shrinks at its old end while one asks.
_MEMORY_MARGIN_SLOTS = 2
_OFFSET_RETRY_SECONDS = 30.0
# By more than this the clocks of one machine part only if one of them is set.
_JUMP_SECONDS = 1.0
# No clock is off by a day: what is older is closed and final by any clock.
_SURELY_CLOSED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Delays:
    """How long after its close a candle may still change, and an absent one only be late."""

    settle: timedelta
    absence_grace: timedelta


@dataclass(frozen=True, slots=True)
class _Offset:
    """By how much the exchange's clock was ahead of ours when ours showed `shown`.

    `monotonic` and `until` are of the clock that nobody sets, in seconds.
    """

    ahead: timedelta
    shown: datetime
    monotonic: float
    until: float


class ExchangeClock:
    """Tells, for the series of one exchange, what can be asked for now."""

    def __init__(self, adapter: ExchangeAdapter, clock: Clock, delays: Delays) -> None:
        self._adapter = adapter
        self._clock = clock
        self._delays = delays
        self._offset: _Offset | None = None
        self._asking = asyncio.Lock()
        self._asking_again: asyncio.Task[None] | None = None

    @property
    def settle(self) -> timedelta:
        """How long after its close a candle may still change."""
        return self._delays.settle

    async def watermarks(
        self, series: Series, end: datetime | None, context: RequestContext = DEFAULT_CONTEXT
    ) -> Watermarks:
        """Give what can be asked for now.

        Args:
            series: On its own grid.
            end: Where the window in question ends, None for now: whether the exchange's own clock
                matters depends on it.
            context: On whose behalf that clock is read.

        Raises:
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        grid, ours = series.grid, self._clock()
        surely_closed = grid.floor(ours - _SURELY_CLOSED)
        if end is not None and end <= surely_closed:
            closed = settled = late_from = surely_closed
        else:
            now = await self.now(context)
            closed, settled = grid.floor(now), grid.floor(now - self._delays.settle)
            late_from = grid.floor(now - self._delays.absence_grace)
        begins = self._begins(series, closed)
        remembered = self._remembered(grid, max(closed, grid.floor(ours)))
        return Watermarks(begins, min(max(begins, remembered), closed), settled, closed, late_from)

    async def settled(self, grid: Grid, context: RequestContext = DEFAULT_CONTEXT) -> datetime:
        """Tell up to when candles on a grid are final now.

        Raises:
            ExchangeError: The exchange's clock could not be read.
        """
        return grid.floor(await self.now(context) - self._delays.settle)

    async def remembers(
        self, grid: Grid, open_time: datetime, context: RequestContext = DEFAULT_CONTEXT
    ) -> bool:
        """Tell whether the exchange surely still has the candle that opens then.

        Raises:
            ExchangeError: The exchange's clock could not be read.
        """
        return open_time >= await self.remembered_from(grid, context)

    async def remembered_from(
        self, grid: Grid, context: RequestContext = DEFAULT_CONTEXT
    ) -> datetime:
        """Give the first slot that the exchange surely still has now.

        Raises:
            ExchangeError: The exchange's clock could not be read.
        """
        return self._remembered(grid, grid.floor(await self.now(context)))

    def _begins(self, series: Series, closed: datetime) -> datetime:
        if series.empty_before is not None:
            return min(series.empty_before, closed)
        # A beginning that was asked for and not found: nothing was traded so far.
        return closed if self._adapter.facts.supports_first_candle else series.grid.at(0)

    def _remembered(self, grid: Grid, closed: datetime) -> datetime:
        """Give the first slot that is surely still there when the request arrives."""
        memory = self._adapter.facts.retention_candles
        if memory is None:
            return grid.at(0)
        return grid.at(grid.index(closed) - memory + _MEMORY_MARGIN_SLOTS)

    async def now(self, context: RequestContext = DEFAULT_CONTEXT) -> datetime:
        """Give the exchange's time.

        Nobody waits for its clock to be read again, and while it can't be, what was known of it is
        believed; unless our own clock was set since.

        Raises:
            ExchangeError: It can't be asked, and nothing is known.
        """
        known = self._offset
        if known is None or self._was_set_since(known):
            async with self._asking:
                if self._offset is known:
                    self._offset = await self._ask(context)
        elif time.monotonic() >= known.until and self._is_idle():
            # It is nobody's request: neither counted nor logged as one.
            alone = contextvars.Context()
            self._asking_again = asyncio.create_task(self._ask_again(known), context=alone)
        assert self._offset, "it was asked for"  # noqa: S101 - for the type checker
        return self._clock() + self._offset.ahead

    async def aclose(self) -> None:
        """Ask no more."""
        if self._asking_again:
            self._asking_again.cancel()
            await asyncio.gather(self._asking_again, return_exceptions=True)

    def _is_idle(self) -> bool:
        return self._asking_again is None or self._asking_again.done()

    def _was_set_since(self, known: _Offset) -> bool:
        """Tell whether our clock made a jump: it would be taken for the exchange's."""
        least = time.monotonic() - known.monotonic - _JUMP_SECONDS
        passed = (self._clock() - known.shown).total_seconds() / self._clock.speed
        most = time.monotonic() - known.monotonic + _JUMP_SECONDS
        return not least <= passed <= most

    async def _ask(self, context: RequestContext) -> _Offset:
        server_time = await self._adapter.bound(context).server_time()
        # The answer was under way for a while: the exchange's clock is ahead, if at all.
        shown, monotonic = self._clock(), time.monotonic()
        return _Offset(server_time - shown, shown, monotonic, monotonic + _OFFSET_KEPT_SECONDS)

    async def _ask_again(self, known: _Offset) -> None:
        try:
            self._offset = await self._ask(DEFAULT_CONTEXT)
        except ExchangeError:
            self._offset = replace(known, until=time.monotonic() + _OFFSET_RETRY_SECONDS)
