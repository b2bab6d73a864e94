"""Who fills a page: one task in a process, one process of all.

The tasks are owned here and not by the requests that wait for them: a client that leaves cancels
nothing, and whoever else wants the page waits for the same task. Tokens come first, so that nobody
keeps others from a page while waiting for them; then the claim; then the coverage is read again.
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
    Overloaded,
    RateLimited,
    StoreUnavailable,
    copied,
)
from mdp_core.fill.fetcher import PageFetcher
from mdp_core.fill.pages import Page, adjacent_runs
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Urgency
from mdp_core.ratelimit.scheduler import RequestScheduler
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.candles.claims import Claims

# How long to wait before looking again at a page that another process works at.
_LOOK_AGAIN_SECONDS = (0.05, 0.25)

# What is told to somebody whose page got no tokens in time.
_RETRY_SECONDS = 1.0

# What is no page's own fault: the others would meet it too.
_OUT_OF_ORDER = (ExchangeUnavailable, RateLimited, StoreUnavailable)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a page could not be filled."""

    page: Page
    error: MdpError


@dataclass(frozen=True, slots=True)
class FillLimits:
    """How much is done at once for one exchange, and how long it is waited for."""

    waiting: int
    """Requests that wait for pages at the most."""
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
    """Has the store hold pages of one exchange's series, asking for each of them once."""

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
        self._waiting = 0

    async def fill(
        self,
        series: Series,
        pages: Sequence[Page],
        watermarks: Watermarks,
        context: RequestContext,
    ) -> list[Failure]:
        """Fill the pages, or wait for those who are filling them; what succeeded stays stored.

        Once the exchange or the store turns out to be out of order, pages that were not begun and
        that nobody else waits for are given up.

        Raises:
            Overloaded: Too many wait already.
        """
        self._start(series, pages, watermarks, context)
        works = [self._page_tasks[series.id, page.index] for page in pages]
        with self._waiting_for(works, context) as waited:
            verdict = await self._ended(series, waited, context.until)
        return [
            Failure(page, error)
            for page, work in zip(pages, works, strict=True)
            if (error := _error(series, work, verdict))
        ]

    async def aclose(self) -> None:
        """End the tasks that still run; what they had saved stays."""
        tasks = {work.task for work in self._page_tasks.values()}
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
        """Have a task for each page; adjacent ones that are new share one, and its request."""
        if self._waiting >= self._limits.waiting:
            raise Overloaded
        new = [page for page in pages if (series.id, page.index) not in self._page_tasks]
        for run in adjacent_runs(new, self._fetcher.facts.pages_per_request):
            work = _PageTask(run, Urgency(context.priority))
            self._page_tasks |= dict.fromkeys(_keys(series, work), work)
            work.task = asyncio.create_task(self._fill(series, work, watermarks, context))
            work.task.add_done_callback(lambda _, work=work: self._forget(series, work))

    def _forget(self, series: Series, work: _PageTask) -> None:
        for key in _keys(series, work):
            if self._page_tasks.get(key) is work:
                del self._page_tasks[key]
        if work.task.done() and not work.task.cancelled():
            work.task.exception()  # nobody may be left to see it

    @contextmanager
    def _waiting_for(
        self, works: Sequence[_PageTask], context: RequestContext
    ) -> Generator[set[_PageTask]]:
        """Count as somebody who waits for what is in the set that this gives."""
        waited = set(works)
        for work in waited:
            work.waiting += 1
            work.urgency.raise_to(context.priority)
        self._waiting += 1
        try:
            yield waited
        finally:
            self._waiting -= 1
            for work in waited:
                work.waiting -= 1

    async def _ended(
        self, series: Series, waited: set[_PageTask], until: float | None
    ) -> MdpError | None:
        """Wait until all have ended; tell what was out of order, if anything was.

        What has no tokens at `until` (the event loop's time) is waited for no more: somebody in
        less haste may have begun it, and go on waiting.
        """
        verdict: MdpError | None = None
        while pending := {work.task for work in waited if not work.task.done()}:
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
        """Wait no more for what was not begun; what nobody waits for then is not done at all."""
        for work in [work for work in waited if not work.is_begun]:
            waited.remove(work)
            work.waiting -= 1
            if not work.waiting:
                self._forget(series, work)
                work.task.cancel()

    async def _fill(
        self, series: Series, work: _PageTask, watermarks: Watermarks, context: RequestContext
    ) -> None:
        context = replace(context, urgency=work.urgency)
        whole = hull([page.window for page in work.pages])
        weight = self._fetcher.facts.tariff.weigh(series.grid.count(whole.start, whole.end))
        respected_until: float | None = None
        while True:
            async with self._scheduler.permit(weight, context) as permit:
                work.is_begun = True
                pages = [page.index for page in work.pages]
                async with self._claims.claim(series.id, pages) as is_ours:
                    now = time.monotonic()
                    respected_until = respected_until or now + self._limits.claim_seconds
                    if is_ours or now > respected_until:
                        holding = context.holding(permit)
                        return await self._fetcher.fetch(series, work.pages, watermarks, holding)
            work.is_begun = False
            await asyncio.sleep(random.uniform(*_LOOK_AGAIN_SECONDS))  # noqa: S311 - not a secret
            final = whole.clip(whole.start, watermarks.settled_until)
            if not (final.is_empty or await self._store.missing(series.id, final)):
                return None


def _keys(series: Series, work: _PageTask) -> list[tuple[int, int]]:
    return [(series.id, page.index) for page in work.pages]


def _error(series: Series, work: _PageTask, verdict: MdpError | None) -> MdpError | None:
    """Give why a work was not done, or was given up; what is no `MdpError` is raised."""
    if not work.task.done():
        return verdict
    if work.task.cancelled():
        return verdict or ExchangeUnavailable(series.exchange, "is not asked: this service stops")
    error = work.task.exception()
    if error is not None and not isinstance(error, MdpError):
        raise error
    return copied(error) if error else None
