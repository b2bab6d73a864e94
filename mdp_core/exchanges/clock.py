"""The exchange's "now", and with it what can be asked for and what is final."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mdp_core.domain.intervals import Grid
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.exchanges.base import ExchangeFacts
from mdp_core.exchanges.clock_reading import SURELY_CLOSED, ClockReader, Times
from mdp_core.ratelimit.context import DEFAULT_CONTEXT, RequestContext

# No exchange of today sold anything before that.
EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)

# What an exchange remembers shrinks at its old end while one asks.
_MEMORY_MARGIN_SLOTS = 2


@dataclass(frozen=True, slots=True)
class Delays:
    """The time after its close in which a candle may change, or an absent one be late."""

    settle: timedelta
    absence_grace: timedelta


class ExchangeClock:
    """Tells, for the series of one exchange, what can be asked for now.

    What is closed is so by the exchange's clock and by ours. Where they are too far apart, what
    lies beyond the earlier one is in doubt.
    """

    def __init__(self, facts: ExchangeFacts, reader: ClockReader, delays: Delays) -> None:
        self._facts = facts
        self._reader = reader
        self._delays = delays

    @property
    def settle(self) -> timedelta:
        """The time after its close in which a candle may still change."""
        return self._delays.settle

    async def watermarks(
        self, series: Series, end: datetime | None, context: RequestContext = DEFAULT_CONTEXT
    ) -> Watermarks:
        """Give what can be asked for now.

        Args:
            series: On its own grid.
            end: Where the window in question ends, None for now.
            context: On whose behalf the exchange's clock is read.

        Raises:
            ClockSkew: The clocks are apart, and the window reaches beyond the earlier one.
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        grid, times = series.grid, await self._reader.times(end, context)
        closed = grid.floor(times.earlier)
        if times.problem and (end is None or grid.ceil(end) > closed):
            raise times.problem.with_traceback(None)
        return self._watermarks(series, times)

    async def watermarks_for_lookup(
        self, series: Series, end: datetime | None, context: RequestContext = DEFAULT_CONTEXT
    ) -> Watermarks:
        """Give what may be stored: as `watermarks`, but nothing may be fetched by it.

        A process that has just started serves what is stored and old without asking any exchange.
        """
        grid = series.grid
        times = await self._reader.times_without_asking(grid.ceil(end)) if end else None
        if times is None or times.problem or (end and grid.ceil(end) > grid.floor(times.earlier)):
            return await self.watermarks(series, end, context)
        return self._watermarks(series, times)

    def presumed(self, series: Series) -> Watermarks:
        """Give what can be asked for by our own clock alone: neither is asked."""
        ours = self._reader.ours
        return self._watermarks(series, Times(ours, ours))

    def may_be_edge(self, series: Series, end: datetime) -> bool:
        """Return whether `end` may be the end of the last closed candle, not long over.

        What is old enough is asked for without reading a clock, up to a day before the edge.
        """
        return end > series.grid.floor(self._reader.ours - SURELY_CLOSED)

    async def settled(self, grid: Grid, context: RequestContext = DEFAULT_CONTEXT) -> datetime:
        """Tell up to when candles on a grid are final now, by the earlier clock."""
        times = await self._reader.times(None, context)
        return grid.floor(times.earlier - self._delays.settle)

    async def remembers(
        self, grid: Grid, open_time: datetime, context: RequestContext = DEFAULT_CONTEXT
    ) -> bool:
        """Tell whether the exchange surely still has the candle that opens then."""
        return open_time >= await self.remembered_from(grid, context)

    async def remembered_from(
        self, grid: Grid, context: RequestContext = DEFAULT_CONTEXT
    ) -> datetime:
        """Give the first slot that the exchange surely still has now, by the later clock."""
        times = await self._reader.times(None, context)
        return self._remembered(grid, grid.floor(times.later))

    async def now(self, context: RequestContext = DEFAULT_CONTEXT) -> datetime:
        """Give the time by the earlier of the exchange's clock and ours.

        Raises:
            ClockSkew: They are apart.
            ExchangeError: The exchange's can't be read, and nothing is known of it.
        """
        times = await self._reader.times(None, context)
        if times.problem:
            raise times.problem.with_traceback(None)
        return times.earlier

    async def aclose(self) -> None:
        """Ask no more."""
        await self._reader.aclose()

    def _watermarks(self, series: Series, times: Times) -> Watermarks:
        grid, closed = series.grid, series.grid.floor(times.earlier)
        settled = grid.floor(times.earlier - self._delays.settle)
        grace = grid.floor(times.earlier - self._delays.absence_grace)
        begins = self._begins(series, closed)
        # A clock that is apart tells nothing of what is forgotten.
        remembered = self._remembered(grid, closed if times.problem else grid.floor(times.later))
        return Watermarks(begins, min(max(begins, remembered), closed), settled, closed, grace)

    def _begins(self, series: Series, closed: datetime) -> datetime:
        if series.empty_before is not None:
            return min(series.empty_before, closed)
        # A history start that was asked for and not found: nothing was traded so far.
        return closed if self._facts.supports_first_candle else series.grid.at(0)

    def _remembered(self, grid: Grid, closed: datetime) -> datetime:
        """Give the first slot that is surely still there when the request arrives."""
        memory = self._facts.retention_candles
        if memory is None:
            return grid.at(0)
        return grid.at(grid.index(closed) - memory + _MEMORY_MARGIN_SLOTS)
