"""Fill jobs: asked for, estimated, followed, cancelled, and worked on.

The coverage is the queue: any worker fills what is missing of the oldest open job, and a job is
done when nothing is missing any more.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mdp_core.answer import CandleQuery
from mdp_core.backfill_store import BackfillStore, Job, State
from mdp_core.bulk import BulkFill, Outlook
from mdp_core.errors import NoSyncer, UnknownBackfill
from mdp_core.estimate import Estimate
from mdp_core.intervals import Interval
from mdp_core.job_runs import JobRuns
from mdp_core.market import Market
from mdp_core.metadata import Metadata
from mdp_core.model import Series, Window
from mdp_core.selection import Selection, Selector, SeriesName

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Planned:
    """A window of a series that may be filled, and what that takes; no job yet."""

    series: Series
    window: Window
    outlook: Outlook


@dataclass(frozen=True, slots=True)
class Followed:
    """A job and what is left of it: an estimate, and what the exchange can't give any more."""

    job: Job
    left: Estimate
    forgotten: Sequence[Window]


class Backfills:
    """Takes fill jobs and tells how they get on."""

    def __init__(
        self,
        jobs: BackfillStore,
        bulk: BulkFill,
        metadata: Metadata,
        runs: JobRuns,
        markets: Mapping[tuple[str, str], Market],
    ) -> None:
        self._jobs = jobs
        self._bulk = bulk
        self._metadata = metadata
        self._runs = runs
        self._markets = markets
        self._selector = Selector(metadata)

    async def names(self, selection: Selection) -> list[SeriesName]:
        """Give the series that a selection names.

        Raises:
            MdpError: As `Selector.names`.
        """
        return await self._selector.names(selection)

    async def plan(
        self, names: Sequence[SeriesName], start: datetime | None, end: datetime | None
    ) -> list[Planned]:
        """Tell what filling each series takes; what is not known of one is asked for first.

        Args:
            names: Of the series.
            start: Open times from here on, None: from where each history begins.
            end: Open times before this, None: until now.

        Raises:
            InvalidWindow: `start` lies after `end`.
            MdpError: A series is unknown, or an exchange had to be asked and failed.
        """
        free = asyncio.Semaphore(_AT_ONCE)

        async def plan_one(name: SeriesName) -> Planned:
            async with free:
                series = await self.series(name)
                return await self.plan_series(series, start, end)

        return list(await asyncio.gather(*map(plan_one, names)))

    async def plan_series(
        self, series: Series, start: datetime | None, end: datetime | None
    ) -> Planned:
        """Tell what filling one series takes.

        Raises:
            InvalidWindow: `start` lies after `end`.
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        window = await self._bulk.window(series, start, end)
        return Planned(series, window, await self._bulk.outlook(series, window))

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
        return await self.open(await self.plan_series(series, query.start, end))

    async def open(self, planned: Planned) -> Followed:
        """Have a job for it: an open one for the same window, else a new one.

        Raises:
            NoSyncer: Nobody lives who would work on it.
        """
        if not any(syncer.is_alive for syncer in await self._runs.syncers()):
            raise NoSyncer
        series, window = planned.series, planned.window
        page = self._bulk.terms(series).page_size
        slack = series.grid.at(page) - series.grid.at(0)
        job = await self._job(await self._jobs.open(series.id, window, slack))
        return await self._queued(job, planned.outlook, series)

    async def get(self, job: int) -> Followed:
        """Tell how a job gets on.

        Raises:
            UnknownBackfill: There is no such job.
        """
        return await self._follow(await self._job(job))

    async def jobs(self, *, before: int | None, is_open: bool | None, limit: int) -> list[Followed]:
        """Tell how jobs get on, the newest first."""
        listed = await self._jobs.jobs(before=before, is_open=is_open, limit=limit)
        return [await self._follow(job) for job in listed]

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

    async def _follow(self, job: Job) -> Followed:
        series = await self.series(job)
        outlook = await self._bulk.outlook(series, job.window)
        if not job.state.is_open:
            return Followed(job, replace(outlook.estimate, seconds=0.0), outlook.forgotten)
        return await self._queued(job, outlook, series)

    async def _queued(self, job: Job, outlook: Outlook, series: Series) -> Followed:
        """Have the estimate include what is queued ahead."""
        weight = 0.0
        for ahead in await self._jobs.ahead(series.exchange, job.id):
            facts = self._markets[series.exchange, ahead.market_type].adapter.facts
            grid = facts.intervals[Interval(ahead.interval)].grid
            pages = ahead.missing / (grid.at(facts.page_size) - grid.at(0))
            weight += pages * facts.tariff.weigh(facts.page_size)
        left = outlook.estimate.behind(weight, self._bulk.terms(series))
        return Followed(job, left, outlook.forgotten)


def total(planned: Sequence[Planned]) -> Estimate:
    """Add up what many take, one after the other."""
    return sum((each.outlook.estimate for each in planned), Estimate())
