"""Runs of jobs: claimed, kept alive, ended, and taken over from dead syncers."""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mdp_core.domain.clock import Clock
from mdp_core.errors import MdpError
from mdp_core.storage.jobs.job_runs import HEARTBEAT_SECONDS, JobRuns, RunKey, RunResult
from syncer.schedule import Schedule

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
# What differs between two messages of one failure.
_NUMBER = re.compile(r"\d+")
_real_time = Clock()


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job: its name, when it is due, and what it does.

    `jitter_seconds` is how much later at the most it is started, so that syncers don't all try at
    once. `run` may be called by any syncer, and again after one that died in the middle. With
    `at_start` every syncer runs it once more when it starts: it may have been told other things.
    With `only_on_time` a run that was missed is left out.
    """

    name: str
    schedule: Schedule
    jitter_seconds: float
    run: Callable[[], Coroutine[Any, Any, RunResult]]
    at_start: bool = False
    only_on_time: bool = False


class Runner:
    """A runner of jobs: one run of each at a time, only runs that it has claimed."""

    def __init__(self, runs: JobRuns, worker: str) -> None:
        self._runs = runs
        self._worker = worker
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failing: dict[str, str] = {}

    async def run_due(self, job: ScheduledJob) -> None:
        """Run the run that is due, unless another syncer does."""
        await self._run_apart(job, job.schedule.last_due(_real_time()))

    async def run_now(self, job: ScheduledJob) -> None:
        """Run it, whenever it is due."""
        await self._run_apart(job, _real_time())

    async def take_over(self, jobs: Sequence[ScheduledJob]) -> None:
        """Look for runs that dead syncers left, and run them, until this is cancelled."""
        known = {job.name: job for job in jobs}
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                with suppress(MdpError):
                    for key in await self._runs.abandoned():
                        if key.job in known and key.job not in self._running:
                            group.create_task(self._run(known[key.job], key.due_at))

    async def _run_apart(self, job: ScheduledJob, due_at: datetime) -> None:
        run = asyncio.create_task(self._run(job, due_at))
        await asyncio.wait({run})  # that it is cancelled when this stops is no mistake

    async def stop(self) -> None:
        """Cancel what runs; other syncers may have it at once."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: ScheduledJob, due_at: datetime) -> None:
        if job.name in self._running:
            return
        task = asyncio.current_task()
        assert task, "a coroutine runs in a task"  # noqa: S101 - for the type checker
        self._running[job.name] = task
        try:
            await self._run_claimed(job, RunKey(job.name, due_at))
        except MdpError as error:
            self._tell(job, str(error))
        except Exception:  # noqa: BLE001 - the top of a job: the next run may succeed
            _log.exception("%s: its run could not be written down", job.name)
        finally:
            del self._running[job.name]

    async def _run_claimed(self, job: ScheduledJob, key: RunKey) -> None:
        if not await self._runs.claim(key, self._worker):
            return
        try:
            result = await self._alive(job, key)
        except asyncio.CancelledError:
            with suppress(MdpError):
                await self._runs.release(key, self._worker)
            raise
        await self._runs.end(key, self._worker, result)
        self._tell(job, result.error)

    def _tell(self, job: ScheduledJob, error: str | None) -> None:
        """Warn of a failure once; the same one again is no news, its end is."""
        fields = {"job": job.name}
        kind = _NUMBER.sub("", error) if error else ""
        before = self._failing.pop(job.name, "")
        if error:
            self._failing[job.name] = kind
            level = logging.DEBUG if kind == before else logging.WARNING
            _log.log(level, "%s: %s", job.name, error, extra=fields)
        elif before:
            _log.info("%s: succeeds again", job.name, extra=fields)

    async def _alive(self, job: ScheduledJob, key: RunKey) -> RunResult:
        """Run it with a heartbeat every few seconds; stop if it was taken over."""
        running = asyncio.create_task(job.run())
        beating = asyncio.create_task(self._beat(key))
        try:
            await asyncio.wait({running, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                return RunResult(error="taken over by another syncer")
            return running.result()
        except Exception as error:  # noqa: BLE001 - the top of a job: the next run may succeed
            if not _is_expected(error):
                _log.exception("%s failed", job.name)
            return RunResult(error=f"{type(error).__name__}: {error}")
        finally:
            for task in (running, beating):
                task.cancel()
            await asyncio.gather(running, beating, return_exceptions=True)

    async def _beat(self, key: RunKey) -> None:
        """Send heartbeats until another syncer has the run."""
        is_ours = True
        while is_ours:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            with suppress(MdpError):
                is_ours = await self._runs.beat(key, self._worker)


def describe(errors: Sequence[BaseException]) -> str | None:
    """Say how many series failed in a run, and one of the reasons; None: none did."""
    return f"{len(errors)} failed, one with: {errors[0]}" if errors else None


def _is_expected(error: Exception) -> bool:
    """Tell whether it is all of our own errors: of an exchange, of the database."""
    if isinstance(error, ExceptionGroup):
        return error.split(MdpError)[1] is None  # pyright: ignore[reportUnknownMemberType]
    return isinstance(error, MdpError)
