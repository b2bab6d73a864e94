"""Fill jobs: subjects take turns, and of its own jobs each has the smallest first."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from mdp_core.backfill.bulk import BulkFill, ChunkFiller
from mdp_core.backfill.chunks import Apart
from mdp_core.backfill.history_search import HistorySearch
from mdp_core.backfill.jobs import Backfills
from mdp_core.domain.queries import Missing
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.errors import (
    BadPayload,
    ExchangeRejected,
    HistoryUnavailable,
    MdpError,
    NeverTraded,
    StoreUnavailable,
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    UnsupportedInterval,
)
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.storage.jobs.backfills import BackfillStore, Job, JobState, UnavailableWindow

_log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
# After so long another job has its turn, if there is one.
TURN_SECONDS = 5.0
# Jobs that a worker remembers between their turns.
_MOST_REMEMBERED = 1_000
# A job that can't go on is left alone, each time twice as long as before.
_LONGEST_REST_SECONDS = 300.0
# With these a job can't even be begun, however often it is tried.
_HOPELESS = (
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    UnsupportedInterval,
    NeverTraded,
    BadPayload,
    ExchangeRejected,
)


@dataclass(frozen=True, slots=True)
class _Rest:
    """For how long a job is left alone, and until when (monotonic)."""

    seconds: float
    until: float


class JobWorker:
    """Works on the jobs of one market; any number of workers may work on the same job.

    A job that can't go on, or that is not understood, holds up none of the others.
    """

    def __init__(  # noqa: PLR0913 - its collaborators
        self,
        adapter: ExchangeAdapter,
        jobs: BackfillStore,
        backfills: Backfills,
        bulk: BulkFill,
        *,
        resolver: SeriesResolver,
        history_search: HistorySearch,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._facts = adapter.facts
        self._jobs = jobs
        self._backfills = backfills
        self._bulk = bulk
        self._resolver = resolver
        self._history_search = history_search
        self._turn_seconds = turn_seconds
        self._rests: LRUCache[int, _Rest] = LRUCache(_MOST_REMEMBERED)
        self._fillers: LRUCache[int, ChunkFiller] = LRUCache(_MOST_REMEMBERED)

    async def run(self) -> None:
        """Work until this is cancelled."""
        while True:
            is_idle = True
            try:
                is_idle = not await self.work_once()
            except MdpError as error:
                _log.warning("jobs of %s: %s", self._facts.name, error)
            except Exception:  # noqa: BLE001 - the top of a worker: it must not end unseen
                _log.exception("jobs of %s can't be worked on", self._facts.name)
            if is_idle:
                await asyncio.sleep(_POLL_SECONDS)

    async def work_once(self) -> bool:
        """Work on the job whose turn it is; return whether there was one that could go on.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        now, jobs = time.monotonic(), self._jobs
        resting = [job for job, rest in self._rests.items() if rest.until > now]
        job = await jobs.next(self._facts.name, self._facts.market_type, resting)
        if job is None:
            return False
        try:
            await jobs.start(job.id)
            await self._begin(job)
        except StoreUnavailable:
            raise
        except MdpError as error:
            _log.warning("job %s: %s", job.id, error, extra={"job": job.id})
            self._rest(job.id, error)
            return False
        except Exception as error:  # noqa: BLE001 - the top of a job: the others must go on
            _log.exception("job %s failed", job.id)
            reason = f"{type(error).__name__}: {error}"
            await jobs.end(job.id, JobState.FAILED, reason)
        self._rests.pop(job.id, None)
        return True

    def _rest(self, job: int, error: MdpError) -> None:
        asked: float = getattr(error, "retry_after_seconds", _POLL_SECONDS)
        before = self._rests.get(job, _Rest(0, 0))
        seconds = min(max(asked, _POLL_SECONDS, 2 * before.seconds), _LONGEST_REST_SECONDS)
        self._rests[job] = _Rest(seconds, time.monotonic() + seconds)

    async def _begin(self, job: Job) -> None:
        try:
            series = await self._begun(job)
        except _HOPELESS as error:
            await self._jobs.end(job.id, JobState.FAILED, str(error))
            return
        await self._backfills.narrow(job, series)
        filler = self._fillers.setdefault(job.id, self._bulk.filler(Apart(), Priority.BACKFILL))
        await self._work(job.id, series, filler)

    async def _begun(self, job: Job) -> Series:
        """Return the job's series once its history is known to have begun.

        Raises:
            NeverTraded: It has not begun.
            MdpError: The exchange could not be asked.
        """
        context = RequestContext.at(Priority.BACKFILL)
        series = await self._resolver.series(*job.words, context)
        if job.id in self._fillers:
            return series
        if series.history_start is not None:
            return await self._asked_again(series, context)
        since = job.window.start
        is_begun = not self._facts.supports_first_candle and await self._history_search.find(
            series, since
        )
        if not is_begun:
            raise NeverTraded
        return await self._resolver.series(*job.words, context)

    async def _asked_again(self, series: Series, context: RequestContext) -> Series:
        """Return a series whose history start was asked for anew, if that gave an answer."""
        try:
            return await self._resolver.ask_history_start(series, context)
        except BadPayload as error:
            _log.warning("history start of %s: %s", series, error)
            return series

    async def _work(self, job_id: int, series: Series, filler: ChunkFiller) -> None:
        """Fill chunks of a job until it ends, or its turn does.

        What the exchange has forgotten is no loss of this job's: it is told from the coverage.
        """
        ends_at = time.monotonic() + self._turn_seconds
        while (job := await self._jobs.get(job_id)) and job.state.is_open:
            given_up = [lost.window for lost in job.unavailable]
            step = await filler.step(series, job.window, given_up)
            if step is None or not step.gaps:
                await self._jobs.end(job_id, *_verdict(job))
                return
            if step.chunk and (unavailable := _unavailable(step.lost, step.chunk)):
                await self._jobs.record_unavailable(job_id, unavailable)
            if step.refusal:
                await self._jobs.end(job_id, JobState.FAILED, str(step.refusal))
            if step.delay:
                raise step.delay
            self._rests.pop(job_id, None)
            if time.monotonic() >= ends_at:
                return


def _unavailable(lost: Sequence[Missing], within: Window) -> list[UnavailableWindow]:
    parts = [
        (missing.window.clip(within.start, within.end), missing.error)
        for missing in lost
        if not isinstance(missing.error, HistoryUnavailable)
    ]
    return [
        UnavailableWindow(part, error.code, str(error))
        for part, error in parts
        if not part.is_empty
    ]


def _verdict(job: Job) -> tuple[JobState, str | None]:
    if not job.unavailable:
        return JobState.DONE, None
    first = job.unavailable[0]
    return JobState.FAILED, f"{len(job.unavailable)} window(s) could not be had: {first.detail}"
