"""Fill large windows chunk by chunk through the service, resuming by coverage."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mdp_core.backfill.chunks import ChunkGrid, Order
from mdp_core.backfill.estimate import Estimate, estimate, page_hull
from mdp_core.domain.queries import Bounds, Missing
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, intersect, subtract
from mdp_core.errors import (
    BadPayload,
    BadRows,
    ExchangeRejected,
    HistoryUnavailable,
    InvalidQuery,
    MdpError,
)
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.ratelimit.tariff import Terms
from mdp_core.service.candles import CandleService
from mdp_core.storage.candles.candle_store import CandleStore

_CHUNK_PAGES = 16
# How long to wait where a step brought nothing and nothing was in its way.
_PAUSE_SECONDS = 1.0
# Asking again within the same job would bring the same.
_LASTING = (BadRows, BadPayload, ExchangeRejected, InvalidQuery)
# So many chunks in a row were refused: it is the series itself that the exchange refuses.
_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Outlook:
    """The estimate for a window, and the parts beyond the exchange's retention."""

    estimate: Estimate
    forgotten: Sequence[Window]


@dataclass(frozen=True, slots=True)
class Left:
    """The gaps of a window that are left, and the windows that can't be had."""

    gaps: Sequence[Window]
    lost: Sequence[Missing]


@dataclass(frozen=True, slots=True)
class Filled:
    """The outcome of a chunk: windows that are lost, and a passing obstacle, if any."""

    lost: Sequence[Missing]
    delay: MdpError | None


@dataclass(frozen=True, slots=True)
class Step:
    """A chunk that was tried; the windows that are lost, and a passing obstacle.

    `gaps` is what was still to be fetched before it, as far as that is known.
    """

    chunk: Window | None
    lost: Sequence[Missing]
    delay: MdpError | None
    gaps: Sequence[Window]


class Refusals:
    """Counts the chunks of a series that the exchange refused one after the other."""

    def __init__(self) -> None:
        self._count = 0

    def heed(self, filled: Filled, chunk: Window) -> MdpError | None:
        """Give the refusal once it is the series itself that is refused."""
        refusal = refusal_of(filled, chunk)
        self._count = self._count + 1 if refusal else 0
        return refusal if self._count >= _REFUSALS else None


class BulkFill:
    """Tells what a large window takes, and fills it, a chunk at a time."""

    def __init__(
        self,
        candles: CandleService,
        store: CandleStore,
        markets: Mapping[tuple[str, str], MarketContext],
    ) -> None:
        self._candles = candles
        self._store = store
        self.markets = markets

    async def window(self, series: Series, start: datetime | None, end: datetime | None) -> Window:
        """Align the bounds of a job to the grid; None: from the beginning, to the end.

        It ends where all is settled and nothing is merely late any more, so that all of it can be
        covered. It is empty where it has no such candle.

        Raises:
            InvalidWindow: `start` lies after `end`.
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        Bounds(start=start, end=end)
        watermarks, grid = await self._market(series).watermarks(series, end), series.grid
        last = min(watermarks.grace_start, watermarks.settled_until)
        last = last if end is None else min(grid.ceil(end), last)
        begins = series.history_start or watermarks.history_start
        first = begins if start is None else grid.ceil(start)
        return Window(min(first, last), last)

    async def outlook(self, series: Series, window: Window) -> Outlook:
        """Tell what filling `window` (on the grid) will take.

        Raises:
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        watermarks = await self._market(series).watermarks(series, window.end)
        return await self._outlook(series, window, watermarks)

    async def remaining(self, series: Series, window: Window) -> Outlook:
        """Tell what is left of a window that `window` gave, as far as the coverage tells.

        No exchange is asked: all that lies in such a window was closed when it was given.
        """
        market = self._market(series)
        by_our_clock = market.exchange_clock.presumed(series)
        begins = by_our_clock.history_start
        if series.history_start is not None or market.adapter.facts.supports_first_candle:
            begins = min(series.empty_before or window.end, window.end)
        earliest = min(max(begins, by_our_clock.retention_start), window.end)
        watermarks = Watermarks(begins, earliest, window.end, window.end, window.end)
        return await self._outlook(series, window, market.ranges.remembered(series, watermarks))

    async def _outlook(self, series: Series, window: Window, watermarks: Watermarks) -> Outlook:
        terms = self.terms(series)
        known = window.clip(watermarks.history_start, watermarks.closed_until)
        pages = page_hull(known, series.grid, terms.page_size, watermarks)
        missing = await self._store.uncovered(series.id, _enclosing(known, pages))
        forgotten = intersect(
            missing, known.clip(watermarks.history_start, watermarks.retention_start)
        )
        return Outlook(estimate(window, missing, series.grid, watermarks, terms), forgotten)

    async def steps(
        self, series: Series, window: Window, order: Order, priority: Priority
    ) -> AsyncGenerator[Step]:
        """Fill `window` (on the grid) chunk by chunk, until nothing more can be fetched.

        After a step with a delay the same is tried again: who takes the steps waits, or stops. Of a
        series that the exchange refuses all that is left is lost.
        """
        given_up: list[Window] = []
        before: Sequence[Window] = []
        refusals = Refusals()
        while True:
            try:
                left = await self.left(series, window, given_up)
            except MdpError as error:
                yield Step(None, [], error, before or [window])
                continue
            if not left.lost and not left.gaps:
                return
            await self.pause(before, left)
            before = left.gaps
            step = await self._step(series, left, order, priority, refusals)
            given_up += [each.window for each in step.lost]
            yield step

    async def _step(
        self, series: Series, left: Left, order: Order, priority: Priority, refusals: Refusals
    ) -> Step:
        """Report the windows that are lost already, and try a chunk of the rest."""
        if not left.gaps:
            return Step(None, left.lost, None, [])
        chunk = self.choose(series, left, order)
        filled = await self.fill(series, chunk, priority)
        lost = [*left.lost, *filled.lost]
        if refusal := refusals.heed(filled, chunk):
            rest = subtract(left.gaps, [each.window for each in filled.lost])
            lost += [Missing(gap, refusal) for gap in rest]
        return Step(chunk, lost, filled.delay, left.gaps)

    @staticmethod
    async def pause(before: Sequence[Window], left: Left) -> None:
        """Wait a moment if the step before changed nothing: the next one might not either."""
        if left.gaps and left.gaps == before:
            await asyncio.sleep(_PAUSE_SECONDS)

    async def left(self, series: Series, window: Window, given_up: Sequence[Window]) -> Left:
        """Tell what of `window` is still to be fetched.

        Args:
            series: Whose candles.
            window: On the grid.
            given_up: What is not to be asked for again.

        Raises:
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        context = RequestContext.at(Priority.BACKFILL)
        watermarks = await self._market(series).watermarks(series, window.end, context)
        known = window.clip(watermarks.history_start, watermarks.closed_until)
        missing = subtract(await self._store.uncovered(series.id, known), given_up)
        forgotten = intersect(
            missing, known.clip(watermarks.history_start, watermarks.retention_start)
        )
        error = HistoryUnavailable(series.exchange, watermarks.retention_start)
        return Left(subtract(missing, forgotten), [Missing(part, error) for part in forgotten])

    def choose(self, series: Series, left: Left, order: Order) -> Window:
        """Choose the chunk that comes next of what is left (not nothing)."""
        facts = self._market(series).adapter.facts
        pages = max(_CHUNK_PAGES, 2 * facts.pages_per_request)
        return order.choose(left.gaps, ChunkGrid(series.grid, facts.page_size, pages))

    async def fill(self, series: Series, chunk: Window, priority: Priority) -> Filled:
        """Have the store hold a chunk, or tell why it can't."""
        slots = series.grid.count(chunk.start, chunk.end)
        bounds = Bounds(start=chunk.start, end=chunk.end, partial=True, pages=slots)
        try:
            answer = await self._candles.get(series, bounds, RequestContext.at(priority))
        except _LASTING as error:
            return Filled([Missing(chunk, error)], None)
        except MdpError as error:
            return Filled([], error)
        lost = [each for each in answer.missing if isinstance(each.error, _LASTING)]
        delays = [each.error for each in answer.missing if not isinstance(each.error, _LASTING)]
        return Filled(lost, delays[0] if delays else None)

    def terms(self, series: Series) -> Terms:
        """Give the terms of the series' exchange."""
        return self._market(series).terms

    def _market(self, series: Series) -> MarketContext:
        return self.markets[series.exchange, series.symbol.market_type]


def refusal_of(filled: Filled, chunk: Window) -> MdpError | None:
    """Give the exchange's refusal, if it refused all of a chunk; else None."""
    refused = [each for each in filled.lost if isinstance(each.error, ExchangeRejected)]
    if not refused or subtract([chunk], [each.window for each in refused]):
        return None
    return refused[0].error


def _enclosing(one: Window, other: Window) -> Window:
    return Window(min(one.start, other.start), max(one.end, other.end))
