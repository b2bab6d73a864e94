"""Hot series: extended to the last settled candle as soon as there is one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from mdp_core.admission import at_priority
from mdp_core.answer import CandleQuery
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.job_runs import RunResult
from mdp_core.model import Series, Window
from mdp_core.planner import Reach
from mdp_core.priority import Priority
from mdp_core.selection import Selection, Selector
from mdp_core.wiring import Services

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")

_HOT_FOR = timedelta(hours=24)
_AT_ONCE = 8
_MINUTE_SECONDS = 60
# The rest is for those who ask meanwhile.
_LARGEST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Due:
    """What a series lacks up to the last settled candle, and what a request for it weighs."""

    series: Series
    window: Window
    weight: float


class Warming:
    """Keeps the hot series of one market warm.

    Hot are the series that are configured, and those that were asked for at the live edge within
    a day, the latest first. What a minute's budget does not suffice for waits: those whose last
    request is the longest ago.
    """

    def __init__(
        self, services: Services, adapter: ExchangeAdapter, configured: Sequence[Selection]
    ) -> None:
        self._services = services
        self._adapter = adapter
        name = adapter.facts.name
        self._configured = [each for each in configured if each.exchange == name]
        self._market = services.markets[name, adapter.facts.market_type]

    async def run(self) -> RunResult:
        """Extend every hot series, one small request for each."""
        found, errors = await _all_at_once(self._series, await self._names())
        due = await self._lacking(found)
        capacity = self._market.weight_per_second * _MINUTE_SECONDS * _LARGEST_SHARE
        chosen = within(due, capacity)
        rows, more = await _all_at_once(self._extend, chosen)
        errors += more
        error = f"{len(errors)} series failed, one with: {errors[0]}" if errors else None
        return RunResult(sum(rows), len(due) - len(chosen), error)

    async def _series(self, name: tuple[str, str]) -> Series:
        facts = self._adapter.facts
        with at_priority(Priority.WARMING):
            return await self._services.metadata.series(facts.name, facts.market_type, *name)

    async def _lacking(self, found: Sequence[Series]) -> list[Due]:
        due: list[Due] = []
        ends = await self._services.store.covered_until([series.id for series in found])
        for series in found:
            window = to_extend(
                series,
                await self._market.reach(series, None),
                self._market.page_size,
                ends.get(series.id),
            )
            if not window.is_empty:
                slots = series.grid.count(window.start, window.end)
                due.append(Due(series, window, self._adapter.facts.tariff.weigh(slots)))
        return due

    async def _names(self) -> list[tuple[str, str]]:
        """Give symbol and interval of what is hot: configured, then the latest asked for."""
        selector, facts = Selector(self._services.metadata), self._adapter.facts
        names: dict[tuple[str, str], None] = {}
        for selection in self._configured:
            for name in await selector.names(selection):
                names[name.symbol, name.interval] = None
        asked = await self._services.usage.hot(facts.name, facts.market_type, _HOT_FOR)
        return list(names | dict.fromkeys(asked))

    async def _extend(self, due: Due) -> int:
        """Fill what a series lacks; give how many slots were settled by it."""
        symbol, grid = due.series.symbol, due.series.grid
        query = CandleQuery(
            symbol.exchange,
            symbol.market_type,
            symbol.name,
            due.series.interval.value,
            start=due.window.start,
            end=due.window.end,
            settled=True,
        )
        answer = await self._services.candles.get(query, Priority.WARMING)
        return grid.count(due.window.start, max(answer.stored.end, due.window.start))


async def _all_at_once(
    do: Callable[[_Given], Awaitable[_Result]], given: Iterable[_Given]
) -> tuple[list[_Result], list[BaseException]]:
    """Do it for each, some at a time; give the results, and the errors of those that failed."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def do_one(one: _Given) -> _Result:
        async with free:
            return await do(one)

    results = await asyncio.gather(*map(do_one, given), return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    return [result for result in results if not isinstance(result, BaseException)], errors


def to_extend(
    series: Series, reach: Reach, page_size: int, covered_until: datetime | None
) -> Window:
    """Give what is to be asked for: from the end of coverage, or from where the newest page begins.

    An older hole is not bridged: coverage that ends before the newest page is left alone.

    Args:
        series: On its grid.
        reach: Of now.
        page_size: Slots of a page.
        covered_until: Where the last covered window ends; None: nothing is covered.
    """
    grid, end = series.grid, min(reach.settled, reach.closed)
    page = grid.at((grid.index(end) - 1) // page_size * page_size)
    start = max(page, covered_until or page, reach.earliest)
    return Window(min(start, end), end)


def within(due: Sequence[Due], capacity: float) -> list[Due]:
    """Choose the first ones that a capacity suffices for."""
    chosen: list[Due] = []
    for each in due:
        capacity -= each.weight
        if capacity < 0:
            break
        chosen.append(each)
    return chosen
