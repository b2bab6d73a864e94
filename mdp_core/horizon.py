"""The exchange's "now", and with it what can be asked for and what is final."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mdp_core.errors import ExchangeError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.intervals import Grid
from mdp_core.model import Series
from mdp_core.planner import Reach

# Clocks drift by milliseconds an hour.
_OFFSET_KEPT_SECONDS = 600.0
# What an exchange remembers shrinks at its old end while one asks.
_MEMORY_MARGIN_SLOTS = 2
_OFFSET_RETRY_SECONDS = 30.0
# No clock is off by a day: what is older is closed and final by any clock.
_SURELY_CLOSED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Delays:
    """How long after its close a candle may still change, and an absent one only be late."""

    settle: timedelta
    absence_grace: timedelta


class Horizon:
    """Tells, for the series of one exchange, what can be asked for now."""

    def __init__(
        self, adapter: ExchangeAdapter, clock: Callable[[], datetime], delays: Delays
    ) -> None:
        self._adapter = adapter
        self._clock = clock
        self._delays = delays
        self._offset: timedelta | None = None
        self._offset_until = 0.0
        self._asking = asyncio.Lock()

    @property
    def settle(self) -> timedelta:
        """How long after its close a candle may still change."""
        return self._delays.settle

    async def reach(self, series: Series, end: datetime | None) -> Reach:
        """Give what can be asked for now.

        Args:
            series: On its own grid.
            end: Where the window in question ends, None for now: whether the exchange's own clock
                matters depends on it.

        Raises:
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        grid, ours = series.grid, self._clock()
        if end is not None and end < ours - _SURELY_CLOSED:
            closed = settled = late_from = grid.floor(ours - _SURELY_CLOSED)
        else:
            now = await self.now()
            closed, settled = grid.floor(now), grid.floor(now - self._delays.settle)
            late_from = grid.floor(now - self._delays.absence_grace)
        begins = self._begins(series, closed)
        remembered = self._remembered(grid, max(closed, grid.floor(ours)))
        return Reach(begins, min(max(begins, remembered), closed), settled, closed, late_from)

    async def settled(self, grid: Grid) -> datetime:
        """Tell up to when candles on a grid are final now.

        Raises:
            ExchangeError: The exchange's clock could not be read.
        """
        return grid.floor(await self.now() - self._delays.settle)

    async def remembers(self, grid: Grid, open_time: datetime) -> bool:
        """Tell whether the exchange surely still has the candle that opens then.

        Raises:
            ExchangeError: The exchange's clock could not be read.
        """
        return open_time >= self._remembered(grid, grid.floor(await self.now()))

    def _begins(self, series: Series, closed: datetime) -> datetime:
        if series.history_begins is not None:
            return min(series.history_begins, closed)
        # A beginning that was asked for and not found: nothing was traded so far.
        return closed if self._adapter.facts.probes_beginning else series.grid.at(0)

    def _remembered(self, grid: Grid, closed: datetime) -> datetime:
        """Give the first slot that is surely still there when the request arrives."""
        memory = self._adapter.facts.memory
        if memory is None:
            return grid.at(0)
        return grid.at(grid.index(closed) - memory + _MEMORY_MARGIN_SLOTS)

    async def now(self) -> datetime:
        """Give the exchange's time; while it can't be asked, what was known of it is believed.

        Raises:
            ExchangeError: It can't be asked, and nothing is known.
        """
        async with self._asking:
            if time.monotonic() >= self._offset_until:
                await self._measure_offset()
        return self._clock() + (self._offset or timedelta(0))

    async def _measure_offset(self) -> None:
        try:
            server_time = await self._adapter.server_time()
        except ExchangeError:
            if self._offset is None:
                raise
            self._offset_until = time.monotonic() + _OFFSET_RETRY_SECONDS
            return
        # The answer was under way for a while: the exchange's clock is ahead, if at all.
        self._offset = server_time - self._clock()
        self._offset_until = time.monotonic() + _OFFSET_KEPT_SECONDS
