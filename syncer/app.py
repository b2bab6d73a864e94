"""The syncer: scheduled runs, takeover, fill jobs and a heartbeat."""

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from mdp_core.domain.clock import Clock
from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.settings import Settings
from mdp_core.storage.jobs.job_runs import HEARTBEAT_SECONDS, JobRuns
from mdp_core.wiring import Services, open_services
from syncer.backfill_worker import TURN_SECONDS, JobWorker
from syncer.runner import Runner, ScheduledJob
from syncer.schedule import ScheduleTrigger
from syncer.scheduled_jobs import scheduled_jobs

_log = logging.getLogger(__name__)

_real_time = Clock()
# A run that is so much late was missed.
_ON_TIME_SECONDS = 60


async def serve_syncer(settings: Settings) -> None:
    """Run a syncer until SIGTERM or SIGINT.

    Raises:
        ExceptionGroup: As `running_syncer`.
        InvalidParameter: `MDP_HOT` or `MDP_KEEP` makes no sense.
        StoreUnavailable: The database does not answer.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_services(settings, name="mdp-syncer") as services, running_syncer(services):
        await stop.wait()


@asynccontextmanager
async def running_syncer(services: Services) -> AsyncGenerator[str]:
    """Run a syncer while the context is open; give its name.

    At the end nothing of it runs any more, and its claims may be taken over at once. An error that
    it can't go on after cancels the context and is raised: a supervisor is to start another.

    Raises:
        ExceptionGroup: An unexpected failure.
        InvalidParameter: `MDP_HOT` or `MDP_KEEP` makes no sense.
        StoreUnavailable: The database does not answer.
    """
    name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    jobs, runner = scheduled_jobs(services), Runner(services.runs, name)
    await services.runs.live(name)
    scheduler = _scheduler(jobs, runner)
    async with asyncio.TaskGroup() as group:
        background = _begin(group, services, runner, jobs, name)
        scheduler.start()
        _log.info("syncer started", extra={"syncer": name, "jobs": len(jobs)})
        try:
            yield name
        finally:
            scheduler.pause()
            await runner.stop()
            scheduler.shutdown(wait=False)
            for task in background:
                task.cancel()
            with suppress(MdpError):
                await services.runs.leave(name)
            _log.info("syncer stopped", extra={"syncer": name})


def worker_of(
    services: Services, adapter: ExchangeAdapter, turn_seconds: float = TURN_SECONDS
) -> JobWorker:
    """Build the worker on a market's jobs."""
    return JobWorker(
        adapter,
        services.jobs,
        services.backfills,
        services.bulk,
        resolver=services.resolver,
        history_search=services.history_search,
        turn_seconds=turn_seconds,
    )


def _begin(
    group: asyncio.TaskGroup,
    services: Services,
    runner: Runner,
    jobs: Sequence[ScheduledJob],
    name: str,
) -> list[asyncio.Task[None]]:
    """Begin what goes on as long as the syncer: it ends if any of that does."""
    workers = [
        worker_of(services, adapter) for adapter in services.resolver.directory.markets(None, None)
    ]
    working = [group.create_task(worker.run()) for worker in workers]
    return [
        group.create_task(_live(services.runs, name)),
        group.create_task(runner.take_over(jobs)),
        *working,
    ]


def _scheduler(jobs: Sequence[ScheduledJob], runner: Runner) -> AsyncIOScheduler:
    """Schedule every job: at once for runs that were missed, then when due."""
    scheduler = AsyncIOScheduler(timezone=UTC)
    for job in jobs:
        scheduler.add_job(  # pyright: ignore[reportUnknownMemberType]
            runner.run_due,
            ScheduleTrigger(job.schedule, job.jitter_seconds),
            [job],
            name=job.name,
            max_instances=2,  # the runner has each run once, and says nothing of one that lasts
            coalesce=True,
            # However late, a run does the work that is due when it runs.
            misfire_grace_time=_ON_TIME_SECONDS if job.only_on_time else None,
            next_run_time=_first_run(job),
        )
        if job.at_start:
            scheduler.add_job(runner.run_now, args=[job], misfire_grace_time=None)  # pyright: ignore[reportUnknownMemberType]
    return scheduler


def _first_run(job: ScheduledJob) -> datetime:
    is_missed_run_wanted = not (job.at_start or job.only_on_time)
    return _real_time() if is_missed_run_wanted else job.schedule.next_start(_real_time())


async def _live(runs: JobRuns, name: str) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        with suppress(MdpError):
            await runs.live(name)
