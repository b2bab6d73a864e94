"""Fill each page once: one task per page in a process, one claim of all processes.

The tasks are owned here and not by the requests that wait for them: a client that leaves cancels
nothing, and another request for the page waits for the same task. Tokens come first, so that a
task keeps no other process from a page while it waits for them; then the claim; then the coverage
is read again.
"""

import asyncio
import random
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import hull
from mdp_core.errors import (
    ExchangeUnavailable,
    MdpError,
    RateLimited,
    StoreUnavailable,
    copied,
)
from mdp_core.fill.fetcher import PageFetcher
from mdp_core.fill.pages import Page, adjacent_runs
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Urgency
from mdp_core.ratelimit.scheduler import RequestScheduler
from mdp_core.ratelimit.waiting_room import WaitingRoom
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.candles.claims import Claims

# How long to wait before the coverage is read again of a page that another process fills.
_AGAIN_SECONDS = (0.05, 0.25)

# When a caller may try again whose page got no tokens in time.
_RETRY_SECONDS = 1.0

# Errors that are no page's own: the others would meet them too.
_OUT_OF_ORDER = (ExchangeUnavailable, RateLimited, StoreUnavailable)


@dataclass(frozen=True, slots=True)
class Failure:
    """A page that could not be filled, and the reason."""

    page: Page
    error: MdpError


@dataclass(frozen=True, slots=True)
class FillLimits:
    """The bounds of the filling for one exchange."""

    room: WaitingRoom
    """The place of requests while they wait."""
    claim_seconds: float
    """How long another process' claim on a page is respected."""


@dataclass(slots=True, eq=False)
class _PageTask:
    """The filling of some adjacent pages, and how many requests wait for it."""

    pages: Sequence[Page]
    urgency: Urgency
    waiting: int = 0
    is_begun: bool = False
    task: asyncio.Task[None] = field(init=False)


class PageFiller:
    """Fills pages of one exchange's series, each of them by one task."""

    def __init__(
        self,
        store: CandleStore,
        fetcher: PageFetcher,
        scheduler: RequestScheduler,
        claims: Claims,
        limits: FillLimits,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._scheduler = scheduler
        self._claims = claims
        self._limits = limits
        self._page_tasks: dict[tuple[int, int], _PageTask] = {}
        self.filled = 0
        """How many pages were fetched since this process began."""

    async def fill(
        self,
        series: Series,
        pages: Sequence[Page],
        watermarks: Watermarks,
        context: RequestContext,
    ) -> list[Failure]:
        """Fill the pages, or wait for the tasks that do; what succeeded stays stored.

        Once the exchange or the store turns out to be out of order, pages that were not begun and
        that no other request waits for are given up.

        Raises:
            Overloaded, QuotaExceeded: Too many wait already.
        """
        with self._limits.room.place(context):
            self._start(series, pages, watermarks, context)
            page_tasks = [self._page_tasks[series.id, page.index] for page in pages]
            with self._waiting_for(page_tasks, context) as waited:
                verdict = await self._ended(series, waited, context.until)
        return [
            Failure(page, error)
            for page, page_task in zip(pages, page_tasks, strict=True)
            if (error := _error(series, page_task, verdict))
        ]

    async def aclose(self) -> None:
        """End the tasks that still run; what they had saved stays."""
        tasks = {page_task.task for page_task in self._page_tasks.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(
        self,
        series: Series,
        pages: Sequence[Page],
        watermarks: Watermarks,
        context: RequestContext,
    ) -> None:
        """Start a task for each new page; adjacent ones share one, and its request."""
        new = [page for page in pages if (series.id, page.index) not in self._page_tasks]
        for run in adjacent_runs(new, self._fetcher.facts.pages_per_request):
            page_task = _PageTask(run, Urgency(context.priority))
            self._page_tasks |= dict.fromkeys(_keys(series, page_task), page_task)
            page_task.task = asyncio.create_task(self._fill(series, page_task, watermarks, context))
            page_task.task.add_done_callback(
                lambda _, page_task=page_task: self._forget(series, page_task)
            )

    def _forget(self, series: Series, page_task: _PageTask) -> None:
        for key in _keys(series, page_task):
            if self._page_tasks.get(key) is page_task:
                del self._page_tasks[key]
        if page_task.task.done() and not page_task.task.cancelled():
            page_task.task.exception()  # the waiters may have gone

    @contextmanager
    def _waiting_for(
        self, page_tasks: Sequence[_PageTask], context: RequestContext
    ) -> Generator[set[_PageTask]]:
        """Count as a waiter for the tasks of the set that this yields."""
        waited = set(page_tasks)
        for page_task in waited:
            page_task.waiting += 1
            page_task.urgency.raise_to(context.priority)
        try:
            yield waited
        finally:
            for page_task in waited:
                page_task.waiting -= 1

    async def _ended(
        self, series: Series, waited: set[_PageTask], until: float | None
    ) -> MdpError | None:
        """Wait until all have ended; return what was out of order, if anything was.

        A task that has no tokens at `until` (the event loop's time) is waited for no longer: it
        may have been begun for a caller of lower priority, and go on for that one.
        """
        verdict: MdpError | None = None
        while pending := {page_task.task for page_task in waited if not page_task.task.done()}:
            left = None if until is None else until - asyncio.get_running_loop().time()
            if verdict:  # a page that was refused its claim is back in the queue
                left = _RETRY_SECONDS
            done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            errors = (task.exception() for task in done if not task.cancelled())
            found = next((error for error in errors if isinstance(error, _OUT_OF_ORDER)), None)
            if not done:
                found = RateLimited(series.exchange, _RETRY_SECONDS)
            verdict = verdict or found
            if verdict:
                self._give_up(series, waited)
        return verdict

    def _give_up(self, series: Series, waited: set[_PageTask]) -> None:
        """Leave the tasks that were not begun; one without any waiter is cancelled."""
        for page_task in [page_task for page_task in waited if not page_task.is_begun]:
            waited.remove(page_task)
            page_task.waiting -= 1
            if not page_task.waiting:
                self._forget(series, page_task)
                page_task.task.cancel()

    async def _fill(
        self, series: Series, page_task: _PageTask, watermarks: Watermarks, context: RequestContext
    ) -> None:
        context = replace(context, urgency=page_task.urgency)
        whole = hull([page.window for page in page_task.pages])
        weight = self._fetcher.facts.tariff.weigh(series.grid.count(whole.start, whole.end))
        respected_until: float | None = None
        while True:
            async with self._scheduler.permit(weight, context) as permit:
                page_task.is_begun = True
                pages = [page.index for page in page_task.pages]
                async with self._claims.claim(series.id, pages) as is_ours:
                    now = time.monotonic()
                    respected_until = respected_until or now + self._limits.claim_seconds
                    if is_ours or now > respected_until:
                        holding = context.holding(permit)
                        await self._fetcher.fetch(series, page_task.pages, watermarks, holding)
                        self.filled += len(page_task.pages)
                        return
            page_task.is_begun = False
            await asyncio.sleep(random.uniform(*_AGAIN_SECONDS))  # noqa: S311 - not a secret
            final = whole.clip(whole.start, watermarks.settled_until)
            if not (final.is_empty or await self._store.uncovered(series.id, final)):
                return


def _keys(series: Series, page_task: _PageTask) -> list[tuple[int, int]]:
    return [(series.id, page.index) for page in page_task.pages]


def _error(series: Series, page_task: _PageTask, verdict: MdpError | None) -> MdpError | None:
    """Return the reason why a task failed or was left; raise what is no `MdpError`."""
    if not page_task.task.done():
        return verdict
    if page_task.task.cancelled():
        return verdict or ExchangeUnavailable(series.exchange, "is not asked: this service stops")
    error = page_task.task.exception()
    if error is not None and not isinstance(error, MdpError):
        raise error
    return copied(error) if error else None
