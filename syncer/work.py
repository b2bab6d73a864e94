"""Fill jobs: the oldest open one of each market is worked on until it ends."""

import asyncio
import logging
from collections.abc import Sequence

from mdp_core.admission import at_priority
from mdp_core.answer import Missing
from mdp_core.backfill_store import Job, Loss, State
from mdp_core.bulk import Filled
from mdp_core.chunks import Apart, Order
from mdp_core.errors import (
    ExchangeRejected,
    HistoryUnavailable,
    MdpError,
    UnknownExchange,
    UnknownMarketType,
    UnknownSymbol,
    UnsupportedInterval,
)
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.model import Series, Window
from mdp_core.priority import Priority
from mdp_core.wiring import Services

_log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 30.0
# So many chunks in a row with a refusal: it is the series itself that the exchange refuses.
_REFUSALS = 3
# With these a job can't even be begun, however often it is tried.
_HOPELESS = (UnknownExchange, UnknownMarketType, UnknownSymbol, UnsupportedInterval)


class JobWorker:
    """Works on the jobs of one market; any number of workers may work on the same job."""

    def __init__(self, services: Services, adapter: ExchangeAdapter) -> None:
        self._services = services
        self._facts = adapter.facts

    async def run(self) -> None:
        """Work until this is cancelled."""
        while True:
            try:
                is_idle = not await self.work_once()
            except MdpError as error:
                _log.warning("jobs of %s: %s", self._facts.name, error)
                await asyncio.sleep(_wait_seconds(error))
                continue
            if is_idle:
                await asyncio.sleep(_POLL_SECONDS)

    async def work_once(self) -> bool:
        """Bring the oldest open job to its end; tell whether there was one.

        Raises:
            MdpError: Something is in the way that may pass.
        """
        jobs = self._services.jobs
        job = await jobs.oldest(self._facts.name, self._facts.market_type)
        if job is None:
            return False
        await jobs.start(job.id)
        try:
            series = await self._begun(job)
        except _HOPELESS as error:
            await jobs.end(job.id, State.FAILED, str(error))
            return True
        if series is None:
            await jobs.end(job.id, State.FAILED, "the exchange has no candle of it so far")
            return True
        await self._work(job.id, series)
        return True

    async def _begun(self, job: Job) -> Series | None:
        """Give the job's series once it is known where its history begins."""
        with at_priority(Priority.BACKFILL):
            series = await self._services.backfills.series(job)
        if series.history_begins is not None or self._facts.probes_beginning:
            return series
        if await self._services.bisection.find(series) is None:
            return None
        return await self._services.backfills.series(job)

    async def _work(self, job_id: int, series: Series) -> None:
        order, refused = Apart(), 0
        while (job := await self._services.jobs.get(job_id)) and job.state.is_open:
            filled = await self._step(job, series, order)
            if filled is None:
                await self._services.jobs.end(job_id, *_verdict(job))
                return
            refusal = _refusal(filled)
            refused = refused + 1 if refusal else 0
            if refused == _REFUSALS:
                await self._services.jobs.end(job_id, State.FAILED, str(refusal))
            if filled.delay:
                raise filled.delay

    async def _step(self, job: Job, series: Series, order: Order) -> Filled | None:
        """Fill a chunk, and write down what can't be had; None: nothing is left.

        What the exchange has forgotten is no loss of this job's: it is told from the coverage.
        """
        bulk = self._services.bulk
        left = await bulk.left(series, job.window, [loss.window for loss in job.losses])
        if not left.gaps:
            return None
        chunk = bulk.choose(series, left, order)
        filled = await bulk.fill(series, chunk, Priority.BACKFILL)
        if losses := _losses(filled.lost, chunk):
            await self._services.jobs.lose(job.id, losses)
        return filled


def _losses(lost: Sequence[Missing], within: Window) -> list[Loss]:
    parts = [
        (each.window.clip(within.start, within.end), str(each.error))
        for each in lost
        if not isinstance(each.error, HistoryUnavailable)
    ]
    return [Loss(part, reason) for part, reason in parts if not part.is_empty]


def _verdict(job: Job) -> tuple[State, str | None]:
    if not job.losses:
        return State.DONE, None
    first = job.losses[0]
    return State.FAILED, f"{len(job.losses)} window(s) could not be had: {first.reason}"


def _refusal(filled: Filled) -> MdpError | None:
    """Give the exchange's refusal, if one is among what could not be had."""
    refusals = (each.error for each in filled.lost if isinstance(each.error, ExchangeRejected))
    return next(refusals, None)


def _wait_seconds(error: MdpError) -> float:
    seconds: float = getattr(error, "retry_after_seconds", _POLL_SECONDS)
    return min(max(seconds, _POLL_SECONDS), _LONGEST_WAIT_SECONDS)
