"""Hot series: extended to the last settled candle as soon as there is one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from mdp_core.backfill.concurrency import gather_limited
from mdp_core.domain.intervals import Grid, Interval, epoch_grid
from mdp_core.domain.queries import Bounds
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window
from mdp_core.errors import MdpError
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.series.selection import Selection, SeriesName
from mdp_core.service.candles import CandleService
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.catalog.usage import Usage
from mdp_core.storage.jobs.job_runs import RunResult
from syncer.configured import Configured
from syncer.runner import describe

_log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_HOT_FOR = timedelta(hours=24)
_AT_ONCE = 8
# Those asked for longer ago are not hot: a client that scans all there is must not have all of it
# kept warm for a day.
_MOST_ASKED = 300
_MINUTE_SECONDS = 60
# The rest is for those who ask meanwhile.
_LARGEST_SHARE = 0.9
# The next run is to find nothing of this one under way.
PATIENCE_SECONDS = 57.0
# By so much our clock may be ahead of the exchange's: what has settled there is waited for.
_LARGEST_LEAD = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Due:
    """A series' gap up to the last settled candle, and the weight of its request."""

    series: Series
    window: Window
    weight: float


@dataclass(slots=True)
class _Outcome(Generic[_Result]):
    """The outcome of many: results, errors, and the number that found no time."""

    results: list[_Result]
    errors: list[MdpError]
    waiting: int


class Warming:
    """Keeps the hot series of one market warm.

    Hot are the series that are configured, and those that were asked for at the live edge within
    a day, the latest first. What a minute's budget does not suffice for waits: those whose last
    request is the longest ago.
    """

    def __init__(  # noqa: PLR0913 - its collaborators
        self,
        market: MarketContext,
        resolver: SeriesResolver,
        candles: CandleService,
        store: CandleStore,
        usage: Usage,
        *,
        configured: Sequence[Selection],
        clock_speed: float = 1.0,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._market = market
        self._adapter = market.adapter
        self._resolver = resolver
        self._candles = candles
        self._store = store
        self._usage = usage
        self._clock_speed = clock_speed
        self._patience_seconds = patience_seconds
        self._configured = Configured(resolver, market.adapter, configured, _context())
        self._told_gone: set[str] = set()

    async def run(self) -> RunResult:
        """Extend every hot series, one small request for each; what takes too long waits."""
        until = asyncio.get_running_loop().time() + self._patience_seconds
        async with asyncio.timeout_at(until):
            await self._wait_until_settled()
            names, unknown = await self._names()
            await self._resolver.look_up(self._adapter, names)
        found = await _all_at_once(self._series, names, until)
        due = await self._lacking(found.results)
        capacity = self._market.weight_per_second * _MINUTE_SECONDS * _LARGEST_SHARE
        chosen = within(due, capacity)
        extended = await _all_at_once(self._extend, chosen, until)
        waiting = found.waiting + len(due) - len(chosen) + extended.waiting
        errors = [*unknown, *found.errors, *extended.errors]
        return RunResult(sum(extended.results), waiting, describe(errors))

    async def _wait_until_settled(self) -> None:
        """Wait for the exchange's clock if it is slightly behind that of this run."""
        exchange_clock, minutes = self._market.exchange_clock, epoch_grid(Interval.ONE_MINUTE)
        settled = await exchange_clock.now(_context()) - exchange_clock.settle
        left = minutes.ceil(settled) - settled
        if left < _LARGEST_LEAD:
            await asyncio.sleep(left.total_seconds() / self._clock_speed)

    async def _series(self, name: tuple[str, str]) -> Series:
        facts = self._adapter.facts
        return await self._resolver.series(facts.name, facts.market_type, *name, _context())

    async def _lacking(self, found: Sequence[Series]) -> list[Due]:
        due: list[Due] = []
        ends = await self._store.covered_until([series.id for series in found])
        for series in found:
            window = to_extend(
                series,
                await self._market.watermarks(series, None, _context()),
                self._market.page_size,
                ends.get(series.id),
            )
            if not window.is_empty:
                slots = series.grid.count(window.start, window.end)
                due.append(Due(series, window, self._adapter.facts.tariff.weigh(slots)))
        return due

    async def _names(self) -> tuple[list[tuple[str, str]], list[MdpError]]:
        """Give symbol and interval of what is hot: configured, then the latest asked for.

        Beside it what is configured and could not be found.
        """
        facts = self._adapter.facts
        configured, errors = await self._configured.names()
        configured = await self._still_listed(configured)
        asked = await self._usage.hot(facts.name, facts.market_type, _HOT_FOR, _MOST_ASKED)
        names = [(name.symbol, name.interval) for name in configured]
        return list(dict.fromkeys([*names, *asked])), errors

    async def _still_listed(self, names: Sequence[SeriesName]) -> list[SeriesName]:
        """Leave out delisted symbols, and say so once: nothing new comes of them."""
        listings = await self._resolver.directory.listings(self._adapter)
        active = {listing.symbol.name for listing in listings if listing.symbol.active}
        gone = {name.symbol for name in names} - active
        for symbol in sorted(gone - self._told_gone):
            _log.warning("MDP_HOT names a delisted symbol: %s %s", self._adapter.facts.name, symbol)
        self._told_gone = gone
        return [name for name in names if name.symbol in active]

    async def _extend(self, due: Due) -> int:
        """Fill what a series lacks; give how many slots were settled by it."""
        bounds = Bounds(start=due.window.start, end=due.window.end, settled=True)
        answer = await self._candles.get(due.series, bounds, _context())
        return due.series.grid.count(due.window.start, max(answer.stored.end, due.window.start))


def _context() -> RequestContext:
    return RequestContext.at(Priority.WARMING)


async def _all_at_once(
    do: Callable[[_Item], Awaitable[_Result]], items: Iterable[_Item], until: float
) -> _Outcome[_Result]:
    """Run it for each, some at a time, until then (the loop's time)."""

    async def attempt(item: _Item) -> _Result | MdpError | TimeoutError:
        try:
            async with asyncio.timeout_at(until):
                return await do(item)
        except (MdpError, TimeoutError) as error:
            return error

    outcome = _Outcome[_Result]([], [], 0)
    for result in await gather_limited(attempt, items, _AT_ONCE):
        if isinstance(result, TimeoutError):
            outcome.waiting += 1
        elif isinstance(result, MdpError):
            outcome.errors.append(result)
        else:
            outcome.results.append(result)
    return outcome


def to_extend(
    series: Series, watermarks: Watermarks, page_size: int, covered_until: datetime | None
) -> Window:
    """Return the window to fetch: from the end of coverage, or the newest page.

    An older hole is not bridged: coverage that ends before the newest page is left alone. The
    newest that counts is the one before until what is absent there can't be merely late any more:
    coverage stops at such a slot, and is to go on when it is over.

    Args:
        series: On its grid.
        watermarks: Of now.
        page_size: Slots of a page.
        covered_until: Where the last covered window ends; None: nothing is covered.
    """
    grid, end = series.grid, min(watermarks.settled_until, watermarks.closed_until)
    newest = _page_of_last(end, grid, page_size)
    reached = _page_of_last(min(end, watermarks.grace_start), grid, page_size)
    begun = covered_until if covered_until and covered_until > reached else newest
    start = max(begun, watermarks.retention_start)
    return Window(min(start, end), end)


def _page_of_last(end: datetime, grid: Grid, page_size: int) -> datetime:
    """Give where the page begins that the last slot before `end` lies in."""
    return grid.at((grid.index(end) - 1) // page_size * page_size)


def within(due: Sequence[Due], capacity: float) -> list[Due]:
    """Choose the first ones that a capacity suffices for."""
    chosen: list[Due] = []
    for series in due:
        capacity -= series.weight
        if capacity < 0:
            break
        chosen.append(series)
    return chosen
