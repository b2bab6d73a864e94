"""`mdp backfill`: fills many series in this process, and shows the progress."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from mdp_core.backfill.bulk import BulkFill, Step
from mdp_core.backfill.chunks import Order, newest_first, oldest_first
from mdp_core.backfill.concurrency import gather_limited, wait_out_rate_limit
from mdp_core.backfill.planning import Plan, RejectedFill
from mdp_core.domain.queries import Missing
from mdp_core.domain.windows import Window, subtract
from mdp_core.errors import HistoryUnavailable, MdpError, NeverTraded, StoreUnavailable
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.selection import Selection, SeriesName
from mdp_core.settings import Settings
from mdp_core.wiring import Services, open_services
from scripts.cli.backfill_display import Display, SeriesProgress

_SERIES_AT_ONCE = 4
_LONGEST_WAIT_SECONDS = 30.0
# Planning takes longer only where an exchange's limit has it wait.
_SLOW_SECONDS = 10.0
# After so many attempts without progress the command ends; a later run goes on from there.
_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """The request of a backfill; without bounds all available history."""

    selection: Selection
    start: datetime | None
    end: datetime | None
    dry_run: bool
    newest_first: bool

    def is_loss(self, error: MdpError) -> bool:
        """Tell whether what the exchange does not give for this reason was asked for."""
        return self.start is not None or not isinstance(error, HistoryUnavailable)


async def backfill(settings: Settings, request: BackfillRequest, display: Display) -> bool:
    """Fill, or for a dry run only estimate; return whether everything was filled.

    Series of which nothing can be told are reported, and the others filled.

    Raises:
        MdpError: A symbol is unknown, or an exchange had to be asked for its list and failed.
    """
    async with open_services(settings, name="mdp-backfill") as services:
        plan = await _plan(services, request, display)
        display.show_plan(plan)
        if request.dry_run:
            return not plan.failed and not _lacks(request, plan)
        display.start([SeriesProgress(fill) for fill in plan.planned])
        try:
            display.got_all = await _fill_all(services.bulk, request, display) and not plan.failed
        finally:
            display.stop()
        return display.got_all


def _lacks(request: BackfillRequest, plan: Plan) -> bool:
    """Tell whether it is known already that something asked for can't be had."""
    return request.start is not None and any(fill.outlook.forgotten for fill in plan.planned)


async def _plan(services: Services, request: BackfillRequest, display: Display) -> Plan:
    names = await services.planning.names(request.selection)
    failed = await _find_history_starts(services, request, display, names)
    failing = {failure.name for failure in failed}
    names = [name for name in names if name not in failing]
    async with _said_if_slow(display, f"asking where the histories of {len(names)} series begin"):
        plan = await services.planning.plan(names, request.start, request.end)
    return Plan(plan.planned, [*failed, *plan.failed])


@asynccontextmanager
async def _said_if_slow(display: Display, what: str) -> AsyncGenerator[None]:
    """Show the step if it is slow."""
    saying = asyncio.get_running_loop().call_later(_SLOW_SECONDS, display.search, what)
    try:
        yield
    finally:
        saying.cancel()


async def _find_history_starts(
    services: Services, request: BackfillRequest, display: Display, names: Sequence[SeriesName]
) -> list[RejectedFill]:
    """Search the history starts that no exchange tells, to skip years of nothing.

    Gives the series for which that failed, or that have not begun.
    """
    unknown = [name for name in names if await _is_unknown(services, request, name)]
    if not unknown:
        return []
    display.search(f"searching where the histories of {len(unknown)} series begin")

    async def find(name: SeriesName) -> RejectedFill | None:
        try:
            await wait_out_rate_limit(partial(_find_history_start, services, request, name))
        except StoreUnavailable:
            raise
        except MdpError as error:
            return RejectedFill(name, error)
        return None

    return [failed for failed in await gather_limited(find, unknown, _SERIES_AT_ONCE) if failed]


async def _is_unknown(services: Services, request: BackfillRequest, name: SeriesName) -> bool:
    """Tell whether it takes a search to know where the part begins that is asked for."""
    facts = services.resolver.directory.adapter(name.exchange, name.market_type).facts
    if facts.supports_first_candle:
        return False
    _, is_known = await services.planning.reckoned(
        await services.resolver.series(*name.words), request.start
    )
    return not is_known


async def _find_history_start(
    services: Services, request: BackfillRequest, name: SeriesName
) -> None:
    series = await services.resolver.series(*name.words)
    if await services.history_search.find(series, request.start) is None:
        raise NeverTraded


async def _fill_all(bulk: BulkFill, request: BackfillRequest, display: Display) -> bool:
    async def fill(progress: SeriesProgress) -> bool:
        order = newest_first if request.newest_first else oldest_first
        await SeriesFill(bulk, request, progress, order, display).run()
        display.finish(progress)
        return not progress.lost

    return all(await gather_limited(fill, display.progresses, _SERIES_AT_ONCE))


@dataclass(slots=True)
class SeriesFill:
    """One series on its way into the store."""

    bulk: BulkFill
    request: BackfillRequest
    progress: SeriesProgress
    order: Order
    display: Display
    fruitless: int = field(default=0)
    gaps: Sequence[Window] = field(default=())
    slots_left: int = field(default=0)

    async def run(self) -> None:
        """Take steps until nothing is left, or until nothing has come for long."""
        series, window = self.progress.planned.series, self.progress.planned.window
        steps = self.bulk.steps(series, window, self.order, Priority.BACKFILL)
        async with aclosing(steps):
            async for step in steps:
                await self.record(step)
                if step.delay and self.fruitless >= _PATIENCE:
                    await self._give_up(step.delay)
                    return
                if step.delay:
                    await asyncio.sleep(_wait_seconds(step.delay))

    async def record(self, step: Step) -> None:
        """Take a step into the progress and show it."""
        self._count(step)
        self.progress.lost += [loss for loss in step.lost if self.request.is_loss(loss.error)]
        if step.chunk:
            backwards = self.request.newest_first
            self.progress.reached = step.chunk.start if backwards else step.chunk.end
            await self._look()
        self.display.advance(self.progress, step.delay)

    def _count(self, step: Step) -> None:
        """Count the steps in a row without progress, which the next step shows."""
        grid, before = self.progress.planned.series.grid, self.slots_left
        self.slots_left = sum(grid.count(gap.start, gap.end) for gap in step.gaps)
        self.gaps = step.gaps
        if self.slots_left < before or not step.delay:
            self.fruitless = 0
        self.fruitless += bool(step.delay)

    async def _look(self) -> None:
        planned = self.progress.planned
        # The old estimate will do: the store may be back for the next step.
        with suppress(MdpError):
            outlook = await self.bulk.remaining(planned.series, planned.window)
            self.progress.left = outlook.estimate

    async def _give_up(self, error: MdpError) -> None:
        planned, gaps = self.progress.planned, self.gaps
        with suppress(MdpError):
            gaps = (await self.bulk.gaps(planned.series, planned.window)).gaps
        known = [loss.window for loss in self.progress.lost]
        self.progress.lost += [Missing(gap, error) for gap in subtract(gaps, known)]


def _wait_seconds(error: MdpError) -> float:
    seconds: float = getattr(error, "retry_after_seconds", 1.0)
    return min(max(seconds, 1.0), _LONGEST_WAIT_SECONDS)
