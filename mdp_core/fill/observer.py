"""Ask an exchange for a window until absent slots are facts or known as doubtful."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import Clock
from mdp_core.domain.intervals import Int64s
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window
from mdp_core.errors import ExchangeError, ExchangeUnavailable
from mdp_core.exchanges.base import ExchangeAdapter, ExchangeFacts
from mdp_core.exchanges.validation import Observation, ValidatedRows, judge, validate
from mdp_core.fill.absence import (
    Evidence,
    Reach,
    absent_slots,
    confirmed_slots,
    present_slots,
    second_looks,
    witnessed_slots,
)
from mdp_core.fill.canary import Canary
from mdp_core.fill.history_end import HistoryEnds
from mdp_core.ratelimit.context import RequestContext

# Where not every interval is published a second look reaches so much farther: between two rows an
# absent slot is a fact.
_SPARSE_MARGIN = 15


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of asking for a window; slots are ascending grid indices.

    Attributes:
        validated: Rows of the window that came in any observation.
        absent: Slots for which none came.
        unconfirmed: Those of them that are to be asked for again, although covered.
        unknown: Those of them of which nothing is known, so that they can't be covered.
        error: Why there are such.
    """

    validated: ValidatedRows
    absent: Int64s
    unconfirmed: Int64s
    unknown: Int64s
    error: ExchangeError | None = None


class Observer:
    """Observes series of one exchange and market type.

    Args:
        adapter: Of the market.
        canary: Of the market.
        history_ends: Of the market's inactive symbols.
        clock: Of this service.
        pause_seconds: How long after the first look a second one is made.
    """

    def __init__(
        self,
        adapter: ExchangeAdapter,
        canary: Canary,
        history_ends: HistoryEnds,
        clock: Clock,
        pause_seconds: float,
    ) -> None:
        self._adapter = adapter
        self._canary = canary
        self._history_ends = history_ends
        self._clock = clock
        self._pause_seconds = pause_seconds

    @property
    def facts(self) -> ExchangeFacts:
        """Of the exchange."""
        return self._adapter.facts

    def now(self) -> datetime:
        """Return the time of this service's clock."""
        return self._clock()

    async def observe(
        self, series: Series, window: Window, watermarks: Watermarks, context: RequestContext
    ) -> Finding:
        """Ask for `window`, and again for slots that are absent and not confirmed at once.

        Raises:
            ExchangeError: The first answer did not come, or does not speak of the window.
        """
        first = await self.ask(series, window, context)
        absent = _old_enough(absent_slots([first], series.grid, window), series, watermarks)
        evidence = await self.evidence(series, absent, context)
        confirmed = confirmed_slots(absent, [first], series.grid, evidence)
        doubtful = np.setdiff1d(absent, confirmed, assume_unique=True)
        looks: Sequence[Observation] = ()
        error: ExchangeError | None = None
        if len(doubtful):
            try:
                looks = await self._look_again(series, first, doubtful, watermarks, context)
            except ExchangeError as failure:
                error = failure
        return _finding(series, watermarks, [first, *looks], evidence, error)

    async def look(self, series: Series, window: Window, context: RequestContext) -> Observation:
        """Ask for a window once; an empty answer is live only between two live canaries.

        Where a candle of the window is stored no canary is asked, and no empty answer is live.

        Raises:
            ExchangeError: The exchange can't be asked, or does not speak of the window.
        """
        has_known = await self._canary.knows(series, window)
        may_be_empty = not has_known and await self._canary.precedes(series, context)
        observation = await self.ask(series, window, context)
        if not may_be_empty:
            return observation
        return await self._vouched(series, observation, time.monotonic(), context)

    async def compare(self, series: Series, window: Window, context: RequestContext) -> Observation:
        """Ask for a window of stored candles; an empty answer is asked for again.

        The second one is live if canaries before and after it gave rows. None has to be asked
        while the exchange answers with rows.

        Raises:
            ExchangeError: The exchange can't be asked, or does not speak of the window.
        """
        observation = await self.ask(series, window, context)
        if observation.is_live or not await self._canary.precedes(series, context):
            return observation
        again = await self.ask(series, window, context)
        return await self._vouched(series, again, time.monotonic(), context)

    async def ask(self, series: Series, window: Window, context: RequestContext) -> Observation:
        """Ask for a window once; no canary is asked, so that an empty answer is not live.

        Raises:
            ExchangeError: The exchange can't be asked, or does not speak of the window.
        """
        adapter = self._adapter.bound(context)
        rows = await adapter.fetch_page(series.symbol, series.interval, window)
        return judge(rows, series.grid, window, adapter.facts)

    async def evidence(self, series: Series, absent: Int64s, context: RequestContext) -> Evidence:
        """Return what else tells of absent slots.

        Raises:
            ExchangeError: The exchange had to be asked for a history end and failed.
        """
        is_asked = not series.symbol.active and len(absent) > 0
        ended = await self._history_ends.after_end(series, context) if is_asked else None
        return Evidence(self.facts.fills_empty_intervals, self._clock(), ended)

    async def _look_again(
        self,
        series: Series,
        first: Observation,
        doubtful: Int64s,
        watermarks: Watermarks,
        context: RequestContext,
    ) -> list[Observation]:
        """Ask for doubtful slots some seconds later, by another width.

        Raises:
            ExchangeUnavailable: The exchange answers nothing, not even what it is known to have.
        """
        windows = self._second_looks(series, first, doubtful, watermarks)
        known = present_slots(first, series.grid)
        has_known = all(_holds(window, known, series) for window in windows)
        if not has_known and not await self._canary.precedes(series, context):
            raise _silent(series)
        await context.release_while_waiting(self._pause_seconds)
        looks = [await self.ask(series, window, context) for window in windows]
        if not has_known:
            asked_at = time.monotonic()  # one canary vouches for all
            looks = [await self._vouched(series, look, asked_at, context) for look in looks]
        if not all(look.is_live for look in looks):
            raise _silent(series)
        return looks

    def _second_looks(
        self, series: Series, first: Observation, doubtful: Int64s, watermarks: Watermarks
    ) -> list[Window]:
        grid, facts, window = series.grid, self.facts, first.window
        earliest = min(watermarks.retention_start, window.start)
        reach = Reach(
            Window(earliest, max(watermarks.closed_until, window.end)),
            most=max(facts.page_size, grid.count(window.start, window.end)),
            margin=1 if facts.fills_empty_intervals else _SPARSE_MARGIN,
        )
        return second_looks(doubtful, grid.count(window.start, window.end), grid, reach)

    async def _vouched(
        self, series: Series, look: Observation, asked_at: float, context: RequestContext
    ) -> Observation:
        """Return a live observation if a canary after it, at `asked_at`, gives rows."""
        if look.is_live:
            return look
        is_alive = await self._canary.follows(series, asked_at, context)
        return replace(look, is_live=is_alive)


def _finding(
    series: Series,
    watermarks: Watermarks,
    observations: Sequence[Observation],
    evidence: Evidence,
    error: ExchangeError | None,
) -> Finding:
    grid, window = series.grid, observations[0].window
    absent = absent_slots(observations, grid, window)
    old = _old_enough(absent, series, watermarks)
    confirmed = confirmed_slots(old, observations, grid, evidence)
    doubtful = np.setdiff1d(old, confirmed, assume_unique=True)
    witnessed = witnessed_slots(doubtful, observations[1:], grid)
    unknown = np.setdiff1d(doubtful, witnessed, assume_unique=True)
    return Finding(_merged(observations, series, window), absent, witnessed, unknown, error)


def _merged(observations: Sequence[Observation], series: Series, window: Window) -> ValidatedRows:
    """Merge the rows of all observations; a slot with a wrong row has no right one."""
    rows = Candles.concatenate([observation.candles for observation in observations])
    merged = validate(rows, series.grid, window)
    rejected = {row.slot: row for observation in observations for row in observation.rejected}
    rejected |= {row.slot: row for row in merged.rejected}
    wrong = [slot for slot in sorted(rejected) if window.start <= slot < window.end]
    slots = [series.grid.index(slot) for slot in wrong]
    right = ~np.isin(series.grid.indices(merged.candles.time), slots)
    return ValidatedRows(merged.candles[right], [rejected[slot] for slot in wrong])


def _old_enough(absent: Int64s, series: Series, watermarks: Watermarks) -> Int64s:
    """Return those of `absent` that can't be merely late."""
    return absent[absent < series.grid.index(watermarks.grace_start)]


def _holds(window: Window, slots: Int64s, series: Series) -> bool:
    first, stop = series.grid.index(window.start), series.grid.index(window.end)
    return bool(((slots >= first) & (slots < stop)).any())


def _silent(series: Series) -> ExchangeUnavailable:
    return ExchangeUnavailable(
        series.exchange, "answers nothing, not even the candles that it is known to have"
    )
