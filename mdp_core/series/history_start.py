"""Stored series; a new one's history start is asked of the exchange.

That is asked once for each series and remembered in the catalog. Where one interval tells for all
(`facts.history_start_interval`) it is asked once for a symbol, and the rows that it brings are
stored.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from mdp_core.domain.candles import Candles
from mdp_core.domain.intervals import FixedGrid, Grid, Interval
from mdp_core.domain.series import Series, Symbol
from mdp_core.domain.windows import Window
from mdp_core.errors import copied
from mdp_core.exchanges.base import ExchangeAdapter, OfferedInterval
from mdp_core.exchanges.clock import ExchangeClock
from mdp_core.exchanges.validation import absent_slots, validate
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority, Urgency
from mdp_core.series.history_probes import contradicts_listing, doubtful, first_open
from mdp_core.series.history_rechecks import TOLD, HistoryRechecks
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.candles.claims import Claims
from mdp_core.storage.catalog.catalog import Catalog, HistoryStart, Listing

# How long another process may take to find it. Where that one waits for tokens at a low priority,
# a request that waits here asks soon.
_ELSEWHERE_SECONDS = {Priority.INTERACTIVE: 3.0, Priority.WARMING: 15.0, Priority.BACKFILL: 15.0}
# What was listed so long ago must have a first candle.
_SURELY_TRADED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Question:
    """A probe for a history start, at the highest priority among its waiters."""

    urgency: Urgency
    task: asyncio.Task[Series]


class HistoryStarts:
    """Gives stored series; one task of one process finds the start of a new one."""

    def __init__(  # noqa: PLR0913 - its collaborators
        self,
        catalog: Catalog,
        store: CandleStore,
        claims: Claims,
        clocks: Mapping[ExchangeAdapter, ExchangeClock],
        clock: Callable[[], datetime],
        *,
        rechecks: HistoryRechecks,
    ) -> None:
        self.rechecks = rechecks
        """Asks again for what was told."""
        self._probes = rechecks.probes
        self._catalog = catalog
        self._store = store
        self._claims = claims
        self._horizons = clocks
        self._clock = clock
        self._questions: dict[tuple[int, Interval], _Question] = {}

    async def series(
        self,
        adapter: ExchangeAdapter,
        listing: Listing,
        interval: Interval,
        context: RequestContext,
    ) -> Series:
        """Give the stored series; the first time, where its history begins is asked.

        Args:
            adapter: Of the listing's exchange.
            listing: Whose candles.
            interval: One that the exchange offers.
            context: On whose behalf it is asked.

        Raises:
            ExchangeError: The exchange had to be asked and failed.
            BadPayload: Its answer can't be right.
        """
        if series := await self._begun(adapter, listing, interval):
            return series
        key = (listing.id, interval)
        if key not in self._questions:
            urgency = Urgency(context.priority)
            shared = RequestContext(urgency, context.upstream)
            task = asyncio.create_task(self._begin(adapter, listing, interval, shared))
            self._questions[key] = _Question(urgency, task)
            task.add_done_callback(partial(self._forget, key))
        question = self._questions[key]
        context.urgency.lead(question.urgency)
        # A client that leaves cancels nothing: others wait for the same answer.
        with context.upstream.waiting(), adapter.room.place(context):
            await asyncio.wait([question.task])
        if not question.task.cancelled() and (error := question.task.exception()):
            raise copied(error)
        return question.task.result()

    async def stored(
        self, adapter: ExchangeAdapter, listing: Listing, interval: Interval
    ) -> Series:
        """Give the stored series, whatever is known of it: nothing is asked.

        Args:
            adapter: Of the listing's exchange.
            listing: Whose candles.
            interval: One that the exchange offers.
        """
        grid = adapter.facts.intervals[interval].grid
        series = await self._catalog.series(listing, interval, grid)
        return series or await self._add(adapter, listing, interval, None)

    async def aclose(self) -> None:
        """End the tasks that still run."""
        tasks = [question.task for question in self._questions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: tuple[int, Interval], task: asyncio.Task[Series]) -> None:
        del self._questions[key]
        if not task.cancelled():
            task.exception()  # no caller may be left to see it

    async def _begin(
        self,
        adapter: ExchangeAdapter,
        listing: Listing,
        interval: Interval,
        context: RequestContext,
    ) -> Series:
        """Let one process ask, and wait for it as long as it may take."""
        begun = time.monotonic()
        while True:
            async with self._claims.claim(listing.id, [_claim(interval)]) as is_ours:
                if series := await self._begun(adapter, listing, interval):
                    return series
                waited = time.monotonic() - begun
                if is_ours or waited > _ELSEWHERE_SECONDS[context.priority]:
                    return await self._find(adapter, listing, interval, context)
            await asyncio.sleep(random.uniform(0.05, 0.25))  # noqa: S311 - not a secret

    async def _begun(
        self, adapter: ExchangeAdapter, listing: Listing, interval: Interval
    ) -> Series | None:
        """Give the stored series, unless the exchange can still tell where it begins."""
        grid = adapter.facts.intervals[interval].grid
        series = await self._catalog.series(listing, interval, grid)
        is_known = series and (series.history_start or not adapter.facts.supports_first_candle)
        return series if is_known else None

    async def _find(
        self,
        adapter: ExchangeAdapter,
        listing: Listing,
        interval: Interval,
        context: RequestContext,
    ) -> Series:
        facts = adapter.facts
        if not facts.supports_first_candle:
            return await self._add(adapter, listing, interval, None)
        if facts.history_start_interval in (None, interval):
            return await self._begin_first(adapter, listing, interval, context)
        told = await self.series(adapter, listing, facts.history_start_interval, context)
        if told.history_start is None:
            return await self._add(adapter, listing, interval, None)
        begins = await self.derived(adapter, listing.symbol, interval, told, context)
        start = HistoryStart(begins, f"first traded {told.interval} of the exchange", 2)
        return await self._add(adapter, listing, interval, start)

    async def _begin_first(
        self,
        adapter: ExchangeAdapter,
        listing: Listing,
        interval: Interval,
        context: RequestContext,
    ) -> Series:
        """Ask for the first candles; those that tell for other intervals too are stored."""
        offered, exchange_clock = adapter.facts.intervals[interval], self._horizons[adapter]
        is_kept = interval is adapter.facts.history_start_interval
        settled = await exchange_clock.settled(offered.grid, context) if is_kept else None
        rows = await self._probes.first(adapter, listing.symbol, interval, None, context)
        if not len(rows) and _is_surely_traded(listing.symbol, self._clock()):
            raise doubtful(adapter, listing.symbol, interval)
        witnesses = 1
        if len(rows) and contradicts_listing(rows, listing.symbol, offered.grid):
            told, bound = [first_open(rows)], adapter.bound(context)
            rows, witnesses = await self._probes.agreed(bound, listing.symbol, interval, told), 2
        start = HistoryStart(first_open(rows), TOLD, witnesses) if rows else None
        series = await self._add(adapter, listing, interval, start)
        if start and settled:
            await self._keep(series, rows, settled)
        return series

    async def derived(
        self,
        adapter: ExchangeAdapter,
        symbol: Symbol,
        interval: Interval,
        told: Series,
        context: RequestContext,
    ) -> datetime:
        """Derive a history start from that of another interval, `told`.

        A longer candle holds its first one. Of a shorter interval the first traded candle is asked
        for, where the exchange still remembers that time.
        """
        assert told.history_start, "the caller looked"  # noqa: S101 - for the type checker
        grid = adapter.facts.intervals[interval].grid
        floor = grid.floor(told.history_start)
        if grid.next(floor) >= told.grid.next(told.history_start):
            return floor
        if not await self._horizons[adapter].remembers(grid, floor, context):
            return floor
        rows = await self._probes.first(adapter, symbol, interval, told.history_start, context)
        return first_open(rows) if rows else floor

    async def _add(
        self,
        adapter: ExchangeAdapter,
        listing: Listing,
        interval: Interval,
        start: HistoryStart | None,
    ) -> Series:
        offered = adapter.facts.intervals[interval]
        await self._catalog.add_series(listing, interval, _own_grid(offered, start), start)
        series = await self._catalog.series(listing, interval, offered.grid)
        assert series, "it was added a moment ago and is never deleted"  # noqa: S101 - for the type checker
        if start and series.history_start == start.time:
            await self.rechecks.begin(series, start)
            return replace(series, history_witnesses=start.witnesses)
        return series

    async def _keep(self, series: Series, rows: Candles, settled: datetime) -> None:
        """Store what is final, up to the first absent or wrong slot: pages see to those."""
        assert series.history_start, "there are rows"  # noqa: S101 - for the type checker
        grid = series.grid
        window = Window(min(series.history_start, settled), settled)
        candles = validate(rows, grid, window).candles
        absent = absent_slots(candles.time, grid, window)
        if len(absent):
            window = window.clip(window.start, grid.at(int(absent[0])))
        if not window.is_empty:
            await self._store.save(series.id, [window], candles)


def _claim(interval: Interval) -> int:
    """Number what is claimed of a symbol, as no page of a series is numbered."""
    return -(2**31) + list(Interval).index(interval)


def _is_surely_traded(symbol: Symbol, now: datetime) -> bool:
    listed_at = symbol.listed_at
    return symbol.active and listed_at is not None and listed_at < now - _SURELY_TRADED


def _own_grid(offered: OfferedInterval, start: HistoryStart | None) -> Grid:
    if offered.phase_varies and start and isinstance(offered.grid, FixedGrid):
        return offered.grid.with_phase_of(start.time)
    return offered.grid
