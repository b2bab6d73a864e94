"""Plans: the estimate for many series, before there is a job.

Where a history begins may have to be asked of an exchange first. That has a low priority: users
go first, and a limit that is used up for now is waited for.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from mdp_core.backfill.bulk import BulkFill, Outlook
from mdp_core.backfill.concurrency import gather_limited, wait_out_rate_limit
from mdp_core.backfill.estimate import Estimate
from mdp_core.domain.queries import Bounds
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.errors import (
    ExchangeError,
    MdpError,
    NeverTraded,
    NothingClosed,
    StoreUnavailable,
)
from mdp_core.exchanges.clock import EARLIEST
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.series.selection import Selection, Selector, SeriesName

_AT_ONCE = 8
# Who asks for all until now, and again so much later, means the same.
_SAME_NOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PlannedFill:
    """A window of a series that may be filled, and what that takes; no job yet.

    A job that ends by `slack` earlier is the same: not zero where the window ends now. Unless
    `begins_known` its history may begin later than is reckoned with, and it takes less.
    """

    series: Series
    window: Window
    outlook: Outlook
    slack: timedelta
    begins_known: bool = True
    waiting_seconds: float = 0.0
    """How long what is queued ahead takes."""

    @property
    def name(self) -> SeriesName:
        """The series' name."""
        symbol = self.series.symbol
        return SeriesName(
            symbol.exchange, symbol.market_type, symbol.name, self.series.interval.value
        )

    @property
    def estimate(self) -> Estimate:
        """The estimate, including the wait for jobs queued ahead."""
        alone = self.outlook.estimate
        return replace(alone, seconds=alone.seconds + self.waiting_seconds)

    @property
    def nothing(self) -> MdpError:
        """The error of a window without a closed candle."""
        return NothingClosed(self.window.start, self.window.end)


@dataclass(frozen=True, slots=True)
class RejectedFill:
    """A series of which nothing is to be filled, and why."""

    name: SeriesName
    error: MdpError


@dataclass(frozen=True, slots=True)
class Plan:
    """The planned fills of many series, and the rejected ones."""

    planned: Sequence[PlannedFill]
    failed: Sequence[RejectedFill]

    @property
    def total(self) -> Estimate:
        """The estimate of all, one after the other, after the jobs queued ahead."""
        alone = sum((fill.outlook.estimate for fill in self.planned), Estimate())
        last = max((fill.estimate.seconds for fill in self.planned), default=0.0)
        return replace(alone, seconds=max(alone.seconds, last))

    def worth_a_job(self) -> "Plan":
        """Have the series whose window has no candle stand among those that failed.

        Raises:
            MdpError: Nothing is left: why of the first series.
        """
        planned = [fill for fill in self.planned if not fill.window.is_empty]
        empty = [fill for fill in self.planned if fill.window.is_empty]
        failed = [*self.failed, *(RejectedFill(fill.name, fill.nothing) for fill in empty)]
        if failed and not planned:
            raise failed[0].error
        return Plan(planned, failed)


class Planning:
    """Tells what it takes to fill series."""

    def __init__(self, bulk: BulkFill, resolver: SeriesResolver) -> None:
        self._bulk = bulk
        self._resolver = resolver
        self._selector = Selector(resolver)

    async def names(self, selection: Selection) -> list[SeriesName]:
        """Give the series that a selection names.

        Raises:
            MdpError: As `Selector.names`.
        """
        return await self._selector.names(selection)

    async def plan(
        self,
        names: Sequence[SeriesName],
        start: datetime | None,
        end: datetime | None,
        *,
        patience_seconds: float | None = None,
    ) -> Plan:
        """Estimate the fill of each series; unknown history starts are asked for first.

        Args:
            names: Of the series.
            start: Open times from here on, None: from where each history begins.
            end: Open times before this, None: until now.
            patience_seconds: How long to wait for what exchanges are asked, in all; None: as long
                as it takes. What is not told by then is reckoned with as if it were all there.

        Raises:
            InvalidWindow: `start` lies after `end`.
            StoreUnavailable: The database does not answer.
        """
        Bounds(start=start, end=end)
        now = asyncio.get_running_loop().time()
        until = None if patience_seconds is None else now + patience_seconds

        async def plan_one(name: SeriesName) -> PlannedFill | RejectedFill:
            try:
                series = await self._begun(name, start, until)
                plan = partial(self.plan_series, series, start, end)
                return await wait_out_rate_limit(plan, until)
            except StoreUnavailable:
                raise
            except MdpError as error:
                return RejectedFill(name, error)

        found = await gather_limited(plan_one, names, _AT_ONCE)
        return Plan(
            [result for result in found if isinstance(result, PlannedFill)],
            [result for result in found if isinstance(result, RejectedFill)],
        )

    async def plan_series(
        self, series: Series, start: datetime | None, end: datetime | None
    ) -> PlannedFill:
        """Tell what filling one series takes.

        Raises:
            InvalidWindow: `start` lies after `end`.
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        reckoned, is_known = await self.reckoned(series, start)
        grid, first = series.grid, start
        if start is None and not is_known:
            first = EARLIEST if end is None else min(EARLIEST, end)
        window = await self._bulk.window(reckoned, first, end)
        is_until_now = end is None or window.end < grid.ceil(end)
        slack = max(grid.at(1) - grid.at(0), _SAME_NOW) if is_until_now else timedelta(0)
        outlook = await self._bulk.outlook(reckoned, window)
        if not is_known:
            outlook = replace(outlook, forgotten=[])  # it may as well lie before the history start
        return PlannedFill(series, window, outlook, slack, is_known)

    async def reckoned(self, series: Series, start: datetime | None) -> tuple[Series, bool]:
        """Return a series with the history start to plan with, and whether it is sure.

        Where its own is not known its symbol was traded on the first known day, or listed, or has
        been for as long as any. From `start` on it is sure if that day lies before.
        """
        if series.history_start is not None:
            return series, True
        first_day = await self._resolver.first_day(series)
        begins = series.grid.floor(first_day or series.symbol.listed_at or EARLIEST)
        is_known = first_day is not None and start is not None and first_day <= start
        return replace(series, history_start=begins), is_known

    async def _begun(self, name: SeriesName, start: datetime | None, until: float | None) -> Series:
        """Give a series; where it begins has been asked, unless that took too long.

        A known history start is asked for anew where it bounds the window: a false one would
        leave out years, and the plan would say that nothing is to be done.

        Raises:
            NeverTraded: It has not begun yet.
            MdpError: As `SeriesResolver.series`, but for a limit that is used up.
        """
        context = RequestContext.at(Priority.BACKFILL)
        kept = await self._resolver.stored(*name.words, context)
        adapter = self._resolver.directory.adapter(name.exchange, name.market_type)
        known, ask = kept.history_start, partial(self._resolver.series, *name.words, context)
        if not adapter.facts.supports_first_candle or (known and start and start >= known):
            return kept
        if known is not None:
            ask = partial(self._resolver.ask_history_start, kept, context)
        try:
            async with asyncio.timeout_at(until):
                series = await wait_out_rate_limit(ask)
        except TimeoutError:
            return kept
        except ExchangeError:
            if known is None:
                raise
            return kept  # the exchange contradicts itself, or is away: its pages will tell
        if series.history_start is None:
            raise NeverTraded
        return series
