"""Compare stored pages with the exchange: the base of verify and repair."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.comparison import Comparison, compare
from mdp_core.domain.intervals import Grid, Interval
from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window, hull, intersect
from mdp_core.errors import BadPayload, HistoryUnavailable, InvalidWindow
from mdp_core.exchanges.validation import Observation
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.storage.candles.candle_store import CandleStore


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """The settled, covered windows of a series that its exchange still remembers.

    Attributes:
        market: Of the exchange.
        series: On its own grid.
        askable: Window that the exchange can be asked for.
        covered: Ascending, disjoint, inside it.
    """

    market: MarketContext
    series: Series
    askable: Window
    covered: Sequence[Window]

    def page_ranges(self) -> list[range]:
        """Return the indexes of the pages that hold covered slots, ascending, each once."""
        grid, size = self.series.grid, self.market.page_size
        ranges: list[range] = []
        for window in self.covered:
            first = grid.index(window.start) // size
            first = max(first, ranges[-1].stop) if ranges else first
            stop = (grid.index(window.end) - 1) // size + 1
            if stop > first:
                ranges.append(range(first, stop))
        return ranges

    def pages(self) -> Iterator["StoredPage"]:
        """Yield every page, ascending."""
        for indexes in self.page_ranges():
            yield from map(self.page, indexes)

    def page(self, index: int) -> "StoredPage":
        """Return the covered part of a page."""
        grid, size = self.series.grid, self.market.page_size
        whole = Window(grid.at(index * size), grid.at((index + 1) * size))
        return StoredPage(self, intersect(self.covered, whole))


@dataclass(frozen=True, slots=True)
class StoredPage:
    """The covered windows of one page of a series: ascending, disjoint, at least one."""

    of: StoredSeries
    covered: Sequence[Window]

    @property
    def window(self) -> Window:
        """The question that covers all of them."""
        return hull(list(self.covered))


@dataclass(frozen=True, slots=True)
class ComparedPage:
    """A stored page beside one observation of it.

    Attributes:
        page: The page.
        stored: Candles of the covered windows, without slots whose answered row is bad.
        answered: The same of the observation.
        comparison: Of both.
        observation: The whole answer.
        observed_at: Monotonic time of the answer (seconds).
        problem: The reason why the answer says nothing at all, if there is one.
    """

    page: StoredPage
    stored: Candles
    answered: Candles
    comparison: Comparison
    observation: Observation
    observed_at: float
    problem: str | None = None

    @property
    def doubt(self) -> str | None:
        """The reason why what the answer lacks is no evidence, None if it is."""
        if self.problem:
            return self.problem
        if self.observation.has_strays:
            return "the answer holds rows that were not asked for"
        if self.observation.is_live or not len(self.stored):
            return None
        silent = "and the exchange gave no candle that it surely has, before and after it"
        return f"the answer is empty where {len(self.stored)} candle(s) are stored, {silent}"

    @property
    def bad_slots(self) -> Sequence[datetime]:
        """Slots of which nothing is known: the exchange sent a row that can't be right."""
        return [row.slot for row in self.observation.rejected]


class PageComparer:
    """Finds stored pages and compares them, one request each."""

    def __init__(
        self,
        store: CandleStore,
        resolver: SeriesResolver,
        markets: Mapping[tuple[str, str], MarketContext],
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._markets = markets

    async def renew_history_start(self, series: Series) -> str | None:
        """Ask anew where the history of a series begins; return why that changed nothing.

        Raises:
            MdpError: The exchange or the store can't be had.
        """
        try:
            await self._resolver.ask_history_start(series, RequestContext.at(Priority.BACKFILL))
        except BadPayload as error:
            return f"its history start stays: {error}"
        return None

    async def find(self, query: CandleQuery) -> StoredSeries:
        """Return the stored windows (without bounds: all) that can be compared.

        Raises:
            InvalidWindow: `start` lies after `end`.
            HistoryUnavailable: The exchange no longer has any of the window.
            MdpError: The series is unknown, or the exchange's clock or the store can't be had.
        """
        if query.start and query.end and query.start > query.end:
            raise InvalidWindow(query.start, query.end)
        series = await self._resolver.series(
            query.exchange, query.market_type, query.symbol, query.interval
        )
        market = self._markets[query.exchange, query.market_type]
        await _require_remembered(market, series.grid, query.end)
        askable = await _askable(market, series, query.end)
        grid = series.grid
        start = grid.ceil(query.start) if query.start else askable.start
        end = grid.ceil(query.end) if query.end else askable.end
        asked = askable.clip(start, max(start, end))
        return StoredSeries(market, series, askable, await self._store.covered(series.id, asked))

    async def require_remembered(
        self, exchange: str, market_type: str, interval: str, end: datetime | None
    ) -> None:
        """Check that an exchange has candles before `end` (None: now) of an interval.

        Raises:
            HistoryUnavailable: It has forgotten them all.
            ExchangeError: Its clock could not be read.
        """
        market = self._markets[exchange, market_type]
        grid = market.adapter.facts.intervals[Interval(interval)].grid
        await _require_remembered(market, grid, end)

    async def compare(self, page: StoredPage) -> ComparedPage:
        """Ask the exchange for a page, and compare what is stored of it.

        Raises:
            MdpError: The exchange or the store can't be had.
        """
        series, problem = page.of.series, None
        stored = await self._store.read(series.id, page.window)
        try:
            observation = await observe(page.of, page.window, stored)
        except BadPayload as error:
            observation, problem = _nothing(page.window), str(error)
        observed_at = time.monotonic()
        bad = np.array([to_ms(row.slot) for row in observation.rejected], np.int64)
        stored = _inside(stored[~np.isin(stored.time, bad)], page.covered)
        answered = _inside(observation.candles, page.covered)
        comparison = compare(stored, answered)
        return ComparedPage(page, stored, answered, comparison, observation, observed_at, problem)


async def observe(of: StoredSeries, window: Window, stored: Candles) -> Observation:
    """Ask an exchange for a window, after all other callers, and judge its answer.

    Where it is empty canaries tell whether that is evidence against the candles that are stored.

    Raises:
        ExchangeError: It can't be had, or the answer is to another question.
    """
    observer, context = of.market.observer, RequestContext.at(Priority.BACKFILL)
    if len(stored.inside(window)):
        return await observer.compare(of.series, window, context)
    return await observer.ask(of.series, window, context)


def _nothing(window: Window) -> Observation:
    return Observation(window, Candles.empty(), [], is_live=False, has_strays=False)


async def _askable(market: MarketContext, series: Series, end: datetime | None) -> Window:
    """Return what can be compared: before the history start too, which may be false."""
    watermarks = await market.exchange_clock.watermarks(series, end)
    first = series.grid.at(0)
    if market.adapter.facts.retention_candles is not None:
        first = await market.exchange_clock.remembered_from(series.grid)
    return Window(first, max(watermarks.settled_until, first))


async def _require_remembered(market: MarketContext, grid: Grid, end: datetime | None) -> None:
    facts = market.adapter.facts
    if end is None or facts.retention_candles is None:
        return
    edge = await market.exchange_clock.remembered_from(grid)
    if grid.ceil(end) <= edge:
        raise HistoryUnavailable(facts.name, edge)


def _inside(candles: Candles, windows: Sequence[Window]) -> Candles:
    return Candles.concatenate([candles.inside(window) for window in windows])
