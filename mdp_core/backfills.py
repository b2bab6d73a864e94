"""Fill jobs: asked for, estimated, followed, cancelled, and worked on.

The coverage is the queue: any worker fills what is missing of the oldest open job, and a job is
done when nothing is missing any more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from mdp_core.answer import CandleQuery
from mdp_core.backfill_store import BackfillStore, Job, Memory, Queued, State
from mdp_core.bulk import BulkFill, Outlook
from mdp_core.clock import Clock
from mdp_core.errors import (
    InvalidWindow,
    MdpError,
    NoSyncer,
    NothingClosed,
    StoreUnavailable,
    UnknownBackfill,
)
from mdp_core.estimate import Estimate
from mdp_core.intervals import Interval
from mdp_core.job_runs import JobRuns
from mdp_core.metadata import Metadata
from mdp_core.model import Series, Window
from mdp_core.selection import Selection, Selector, SeriesName

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")

_AT_ONCE = 8
# Who asks for all until now, and again so much later, means the same.
_SAME_NOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Planned:
    """A window of a series that may be filled, and what that takes; no job yet.

    A job that ends by `slack` earlier is the same: not zero where the window ends now.
    """

    series: Series
    window: Window
    outlook: Outlook
    slack: timedelta

    @property
    def nothing(self) -> MdpError:
        """What to say where there is nothing to fill."""
        return NothingClosed(self.window.start, self.window.end)


@dataclass(frozen=True, slots=True)
class Unplanned:
    """A series that nothing can be told of, and why."""

    name: SeriesName
    error: MdpError


@dataclass(frozen=True, slots=True)
class Plan:
    """What many series take, and of which that can't be told now."""

    planned: Sequence[Planned]
    failed: Sequence[Unplanned]

    @property
    def total(self) -> Estimate:
        """What all take, one after the other."""
        return sum((each.outlook.estimate for each in self.planned), Estimate())

    def worth_a_job(self) -> "Plan":
        """Leave out where there is nothing to fill.

        Raises:
            MdpError: Nothing is left: why of the first series.
        """
        planned = [each for each in self.planned if not each.window.is_empty]
        if not planned and self.failed:
            raise self.failed[0].error
        if not planned and self.planned:
            raise self.planned[0].nothing
        return Plan(planned, self.failed)


@dataclass(frozen=True, slots=True)
class Followed:
    """A job and what is left of it: an estimate, and what the exchange can't give any more.

    `left` is None where its series can't be resolved at the moment.
    """

    job: Job
    left: Estimate | None
    forgotten: Sequence[Window]


class Backfills:
    """Takes fill jobs and tells how they get on."""

    def __init__(
        self,
        jobs: BackfillStore,
        bulk: BulkFill,
        metadata: Metadata,
        runs: JobRuns,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._jobs = jobs
        self._bulk = bulk
        self._metadata = metadata
        self._runs = runs
        self._selector = Selector(metadata)

    async def names(self, selection: Selection) -> list[SeriesName]:
        """Give the series that a selection names.

        Raises:
            MdpError: As `Selector.names`.
        """
        return await self._selector.names(selection)

    async def plan(
        self, names: Sequence[SeriesName], start: datetime | None, end: datetime | None
    ) -> Plan:
        """Tell what filling each series takes; what is not known of one is asked for first.

        Args:
            names: Of the series.
            start: Open times from here on, None: from where each history begins.
            end: Open times before this, None: until now.

        Raises:
            InvalidWindow: `start` lies after `end`.
            StoreUnavailable: The database does not answer.
        """
        if start is not None and end is not None and start > end:
            raise InvalidWindow(start, end)

        async def plan_one(name: SeriesName) -> Planned | Unplanned:
            try:
                return await self.plan_series(await self.series(name), start, end)
            except StoreUnavailable:
                raise
            except MdpError as error:
                return Unplanned(name, error)

        found = await _some_at_once(plan_one, names)
        return Plan(
            [each for each in found if isinstance(each, Planned)],
            [each for each in found if isinstance(each, Unplanned)],
        )

    async def plan_series(
        self, series: Series, start: datetime | None, end: datetime | None
    ) -> Planned:
        """Tell what filling one series takes.

        Raises:
            InvalidWindow: `start` lies after `end`.
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        grid, window = series.grid, await self._bulk.window(series, start, end)
        is_until_now = end is None or window.end < grid.ceil(end)
        slack = max(grid.at(1) - grid.at(0), _SAME_NOW) if is_until_now else timedelta(0)
        return Planned(series, window, await self._bulk.outlook(series, window), slack)

    async def request(self, query: CandleQuery) -> Followed:
        """Have a job for what a query needs and one request may not fetch.

        With a limit the job reaches as far as so many candles do where none is absent.

        Raises:
            NoSyncer: Nobody lives who would work on it.
            MdpError: As `CandleService.get`.
        """
        series = await self._metadata.series(
            query.exchange, query.market_type, query.symbol, query.interval
        )
        end, grid = query.end, series.grid
        if query.start is not None and query.limit is not None:
            enough = grid.at(grid.index(query.start) + query.limit + 1)
            end = enough if end is None else min(end, enough)
        (followed,) = await self.open([await self.plan_series(series, query.start, end)])
        return followed

    async def open(self, planned: Sequence[Planned]) -> list[Followed]:
        """Have a job for each: an open one for the same window, else a new one.

        Raises:
            NothingClosed: A window is empty; then there is no job for any.
            NoSyncer: Nobody lives who would work on them.
        """
        for each in planned:
            if each.window.is_empty:
                raise each.nothing
        if not any(syncer.is_alive for syncer in await self._runs.syncers()):
            raise NoSyncer
        ids = [await self._jobs.open(each.series.id, each.window, each.slack) for each in planned]
        jobs = {job.id: job for job in await self._jobs.some(ids)}
        waits = await self._waits(list(jobs.values()))
        return [
            Followed(
                jobs[job],
                each.outlook.estimate.behind(waits.get(job, 0.0), self._bulk.terms(each.series)),
                each.outlook.forgotten,
            )
            for job, each in zip(ids, planned, strict=True)
        ]

    async def get(self, job: int) -> Followed:
        """Tell how a job gets on.

        Raises:
            UnknownBackfill: There is no such job.
        """
        (followed,) = await self._follow([await self._job(job)])
        return followed

    async def jobs(self, *, before: int | None, is_open: bool | None, limit: int) -> list[Followed]:
        """Tell how jobs get on, the newest first."""
        return await self._follow(
            await self._jobs.jobs(before=before, is_open=is_open, limit=limit)
        )

    async def cancel(self, job: int) -> Followed:
        """Have nobody work on a job any more; what it has fetched stays.

        Raises:
            UnknownBackfill: There is no such job.
        """
        await self._job(job)
        await self._jobs.end(job, State.CANCELLED)
        return await self.get(job)

    async def series(self, name: SeriesName | Job) -> Series:
        """Give the series that a selection or a job names."""
        return await self._metadata.series(
            name.exchange, name.market_type, name.symbol, name.interval
        )

    async def _job(self, job: int) -> Job:
        if (found := await self._jobs.get(job)) is None:
            raise UnknownBackfill(job)
        return found

    async def _follow(self, jobs: Sequence[Job]) -> list[Followed]:
        waits = await self._waits(jobs)

        async def follow(job: Job) -> Followed:
            try:
                series = await self.series(job)
            except StoreUnavailable:
                raise
            except MdpError:
                return Followed(job, None, [])
            outlook = await self._bulk.remaining(series, job.window)
            left = outlook.estimate.behind(waits.get(job.id, 0.0), self._bulk.terms(series))
            left = left if job.state.is_open else replace(left, seconds=0.0)
            return Followed(job, left, outlook.forgotten)

        return await _some_at_once(follow, jobs)

    async def _waits(self, jobs: Sequence[Job]) -> dict[int, float]:
        """Give the weight that is queued ahead of each open job of the exchanges of these."""
        waits: dict[int, float] = {}
        for exchange in {job.exchange for job in jobs if job.state.is_open}:
            weight = 0.0
            for queued in await self._jobs.queue(exchange, self._memories(exchange)):
                waits[queued.job] = weight
                weight += self._weigh(exchange, queued)
        return waits

    def _weigh(self, exchange: str, queued: Queued) -> float:
        market = self._bulk.markets.get((exchange, queued.market_type))
        if market is None:
            return 0.0
        facts = market.adapter.facts
        grid = facts.intervals[Interval(queued.interval)].grid
        slots = queued.missing / (grid.at(facts.page_size) - grid.at(0)) * facts.page_size
        return market.terms.weigh(round(slots))

    def _memories(self, exchange: str) -> list[Memory]:
        now = self._clock()
        return [
            Memory(market_type, interval.value, each.grid.at(each.grid.index(now) - facts.memory))
            for (name, market_type), market in self._bulk.markets.items()
            for facts in [market.adapter.facts]
            if name == exchange and facts.memory is not None
            for interval, each in facts.intervals.items()
        ]


async def _some_at_once(
    do: Callable[[_Given], Awaitable[_Result]], given: Iterable[_Given]
) -> list[_Result]:
    free = asyncio.Semaphore(_AT_ONCE)

    async def do_one(one: _Given) -> _Result:
        async with free:
            return await do(one)

    return list(await asyncio.gather(*map(do_one, given)))
