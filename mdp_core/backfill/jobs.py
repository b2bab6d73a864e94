"""Fill jobs: asked for, estimated, followed, cancelled, and worked on.

The coverage is the queue: any worker fills what is missing of the job whose turn it is, and a job
is done when nothing is missing any more.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from mdp_core.backfill.bulk import BulkFill
from mdp_core.backfill.concurrency import gather_limited
from mdp_core.backfill.estimate import Estimate
from mdp_core.backfill.planning import Plan, PlannedFill, Planning
from mdp_core.backfill.turns import Entry, ahead_of_each
from mdp_core.domain.clock import Clock
from mdp_core.domain.intervals import Interval
from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window, intersect
from mdp_core.errors import (
    MdpError,
    NoSyncer,
    StoreUnavailable,
    UnknownBackfill,
)
from mdp_core.exchanges.clock import EARLIEST
from mdp_core.series.resolver import SeriesResolver
from mdp_core.storage.candles.absences import AbsenceStore
from mdp_core.storage.jobs.backfills import (
    OWN_COMMANDS,
    BackfillStore,
    Job,
    JobState,
    Owner,
    Queued,
    Retention,
    too_many_jobs,
)
from mdp_core.storage.jobs.job_runs import JobRuns

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job and the rest of it: an estimate, and windows beyond the retention.

    `left` is None where its series can't be resolved at the moment. Unless `begins_known` its
    history may begin later than is reckoned with, and less is left. `unconfirmed` counts covered
    slots without a candle that will be asked for again.
    """

    job: Job
    left: Estimate | None
    forgotten: Sequence[Window]
    begins_known: bool = True
    unconfirmed: int = 0


class Backfills:
    """Takes fill jobs and tells how they get on."""

    def __init__(  # noqa: PLR0913, PLR0917 - its collaborators
        self,
        jobs: BackfillStore,
        bulk: BulkFill,
        planning: Planning,
        resolver: SeriesResolver,
        runs: JobRuns,
        clock: Clock,
        absences: AbsenceStore,
    ) -> None:
        self._absences = absences
        self._clock = clock
        self._planning = planning
        self._jobs = jobs
        self._bulk = bulk
        self._resolver = resolver
        self._runs = runs

    async def request(self, query: CandleQuery, owner: Owner = OWN_COMMANDS) -> JobStatus:
        """Have a job for what a query needs and one request may not fetch.

        With a limit the job reaches as far as so many candles do where none is absent.

        Raises:
            NoSyncer: No syncer is alive to work on it.
            QuotaExceeded: The owner has as many open jobs as it may have.
            MdpError: As `CandleService.get`.
        """
        series = await self._resolver.series(
            query.exchange, query.market_type, query.symbol, query.interval
        )
        end, grid = query.end, series.grid
        if query.start is not None and query.limit is not None:
            enough = grid.at(grid.index(query.start) + query.limit + 1)
            end = enough if end is None else min(end, enough)
        planned = await self._planning.plan_series(series, query.start, end)
        (followed,) = await self.open([planned], owner)
        return followed

    async def open(
        self, planned: Sequence[PlannedFill], owner: Owner = OWN_COMMANDS
    ) -> list[JobStatus]:
        """Have a job for each: an open one for the same window, else a new one.

        Raises:
            NothingClosed: A window is empty; then there is no job for any.
            NoSyncer: No syncer is alive to work on them.
            QuotaExceeded: The owner would have more open jobs than it may have.
        """
        for fill in planned:
            if fill.window.is_empty:
                raise fill.nothing
        if not any(syncer.is_alive for syncer in await self._runs.syncers()):
            raise NoSyncer
        await self._check_quota(planned, owner)
        ids = [
            await self._jobs.get_or_create(fill.series.id, fill.window, fill.slack, owner)
            for fill in planned
        ]
        jobs = {job.id: job for job in await self._jobs.get_many(ids)}
        ahead = await self._ahead(entry.exchange for entry in jobs.values())
        return [
            JobStatus(
                jobs[job],
                fill.outlook.estimate.behind(ahead.get(job, 0.0), self._bulk.terms(fill.series)),
                fill.outlook.forgotten,
                fill.begins_known,
            )
            for job, fill in zip(ids, planned, strict=True)
        ]

    async def _check_quota(self, planned: Sequence[PlannedFill], owner: Owner) -> None:
        """Raise before the first job is opened if there is no room for all of them."""
        wanted = [(fill.series.id, fill.window, fill.slack) for fill in planned]
        new = sum(job is None for job in await self._jobs.find(wanted))
        if new and await self._jobs.count_open(owner.subject) + new > owner.most_open:
            raise too_many_jobs(owner)

    async def behind_the_queue(self, plan: Plan, owner: Owner = OWN_COMMANDS) -> Plan:
        """Have a plan count the wait for the open jobs, as if its own were opened now.

        What an open job fills already waits where that one stands.
        """
        wanted = [(fill.series.id, fill.window, fill.slack) for fill in plan.planned]
        jobs = await self._jobs.find(wanted)
        keys = [job or _new(index) for index, job in enumerate(jobs)]
        new: dict[str, list[Entry]] = defaultdict(list)
        for key, job, fill in zip(keys, jobs, plan.planned, strict=True):
            entry = Entry(key, owner.subject, fill.outlook.estimate.weight)
            new[fill.series.exchange] += [] if job else [entry]
        ahead = await self._ahead((fill.series.exchange for fill in plan.planned), new)
        planned = [
            replace(fill, waiting_seconds=ahead[key] / self._bulk.terms(fill.series).per_second)
            for key, fill in zip(keys, plan.planned, strict=True)
        ]
        return Plan(planned, plan.failed)

    async def get(self, job: int, subject: str | None = None) -> JobStatus:
        """Return the progress of a job, of a subject's own unless that is None.

        Raises:
            UnknownBackfill: There is no such job.
        """
        (followed,) = await self._follow([await self._job(job, subject)])
        return followed

    async def jobs(
        self, *, before: int | None, is_open: bool | None, limit: int, subject: str | None = None
    ) -> list[JobStatus]:
        """Return the progress of jobs, the newest first; `subject` None: of all subjects."""
        return await self._follow(
            await self._jobs.jobs(before=before, is_open=is_open, limit=limit, subject=subject)
        )

    async def cancel(self, job: int) -> JobStatus:
        """Cancel a job of any subject; the candles that it has fetched stay.

        Raises:
            UnknownBackfill: There is no such job.
        """
        await self._job(job)
        await self._jobs.end(job, JobState.CANCELLED)
        return await self.get(job)

    async def leave(self, job: int, subject: str) -> JobStatus:
        """End a subject's part in its job; the last one to leave cancels it.

        Raises:
            UnknownBackfill: The subject has no such job.
        """
        await self._job(job, subject)
        await self._jobs.leave(job, subject)
        return await self.get(job)

    async def narrow(self, job: Job, series: Series) -> None:
        """Let a job for all of a history begin at the history start, once known."""
        grid, window = series.grid, job.window
        start = grid.ceil(window.start)
        if series.history_start and grid.floor(window.start) <= grid.ceil(EARLIEST):
            start = max(start, series.history_start)
        end = grid.floor(window.end)
        if start < end and (start, end) != (window.start, window.end):
            await self._jobs.narrow(job.id, Window(start, end))

    async def _job(self, job: int, subject: str | None = None) -> Job:
        found = await self._jobs.get(job)
        if found is None or (subject is not None and subject not in found.subjects):
            raise UnknownBackfill(job)
        return found

    async def _follow(self, jobs: Sequence[Job]) -> list[JobStatus]:
        """Tell how jobs get on, from what is kept: no exchange is asked."""
        ahead = await self._ahead(job.exchange for job in jobs if job.state.is_open)

        async def follow(job: Job) -> JobStatus:
            try:
                kept = await self._resolver.stored(*job.words)
            except StoreUnavailable:
                raise
            except MdpError:
                return JobStatus(job, None, [])
            series, is_known = await self._planning.reckoned(kept, job.window.start)
            outlook = await self._bulk.remaining(series, job.window)
            left = outlook.estimate.behind(ahead.get(job.id, 0.0), self._bulk.terms(series))
            left = left if job.state.is_open else replace(left, seconds=0.0)
            doubts = await self._doubts(series, job.window)
            return JobStatus(job, left, outlook.forgotten if is_known else [], is_known, doubts)

        return await gather_limited(follow, jobs, _AT_ONCE)

    async def _doubts(self, series: Series, window: Window) -> int:
        """Count the unconfirmed slots of a window."""
        absences = await self._absences.inside(series.id, window)
        parts = intersect([absence.window for absence in absences], window)
        return sum(series.grid.count(part.start, part.end) for part in parts)

    async def _ahead(
        self, exchanges: Iterable[str], new: Mapping[str, Sequence[Entry]] = MappingProxyType({})
    ) -> dict[Hashable, float]:
        """Return the weight ahead of each open job, and of jobs as if they were open too."""
        ahead: dict[Hashable, float] = {}
        for exchange in set(exchanges):
            entries = [
                Entry(queued.job, queued.subject, self._weigh(exchange, queued))
                for queued in await self._jobs.queue(exchange, self._memories(exchange))
            ]
            ahead |= ahead_of_each([*entries, *new.get(exchange, ())])
        return ahead

    def _weigh(self, exchange: str, queued: Queued) -> float:
        market = self._bulk.markets.get((exchange, queued.market_type))
        if market is None:
            return 0.0
        facts = market.adapter.facts
        grid = facts.intervals[Interval(queued.interval)].grid
        slots = queued.missing / (grid.at(facts.page_size) - grid.at(0)) * facts.page_size
        return market.terms.weigh(round(slots))

    def _memories(self, exchange: str) -> list[Retention]:
        now = self._clock()
        return [
            Retention(
                market_type,
                interval.value,
                entry.grid.at(entry.grid.index(now) - facts.retention_candles),
            )
            for (name, market_type), market in self._bulk.markets.items()
            for facts in [market.adapter.facts]
            if name == exchange and facts.retention_candles is not None
            for interval, entry in facts.intervals.items()
        ]


def _new(index: int) -> str:
    """Name a job that is not open yet."""
    return f"new {index}"
