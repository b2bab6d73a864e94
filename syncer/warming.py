"""Hot series: extended to the last settled candle as soon as there is one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mdp_core.answer import CandleQuery
from mdp_core.errors import MdpError
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.job_runs import RunResult
from mdp_core.model import Series, Window
from mdp_core.planner import Reach
from mdp_core.priority import Priority
from mdp_core.selection import Selection, Selector
from mdp_core.wiring import Services

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
        due, errors = await self._lacking()
        capacity = self._market.weight_per_second * _MINUTE_SECONDS * _LARGEST_SHARE
        chosen = within(due, capacity)
        free = asyncio.Semaphore(_AT_ONCE)

        async def extend(each: Due) -> int:
            async with free:
                return await self._extend(each)

        results = await asyncio.gather(*map(extend, chosen), return_exceptions=True)
        rows = sum(result for result in results if isinstance(result, int))
        errors += [result for result in results if isinstance(result, BaseException)]
        error = f"{len(errors)} series failed, one with: {errors[0]}" if errors else None
        return RunResult(rows, len(due) - len(chosen), error)

    async def _lacking(self) -> tuple[list[Due], list[BaseException]]:
        due: list[Due] = []
        errors: list[BaseException] = []
        market = (self._adapter.facts.name, self._adapter.facts.market_type)
        found: list[Series] = []
        for symbol, interval in await self._names():
            try:
                found.append(await self._services.metadata.series(*market, symbol, interval))
            except MdpError as error:
                errors.append(error)
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
        return due, errors

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
