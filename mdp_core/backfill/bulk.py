"""Fill large windows chunk by chunk through the service, resuming by coverage."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
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
class Remaining:
    """The gaps of a window that can be fetched, and its windows that can't be had."""

    gaps: Sequence[Window]
    lost: Sequence[Missing]


@dataclass(frozen=True, slots=True)
class Step:
    """A chunk that was tried; the windows that are lost, and a passing obstacle.

    `gaps` were still to be fetched before it, as far as that is known. `refusal` is set once the
    exchange refuses the series itself.
    """

    chunk: Window | None
    lost: Sequence[Missing]
    delay: MdpError | None
    gaps: Sequence[Window]
    refusal: MdpError | None = None


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
        """Align the bounds of a job to the grid; None: from the history start, to the end.

        It ends where all is settled and nothing is merely late any more, so that all of it can be
        covered. It is empty where it has no such candle.

        Raises:
            InvalidWindow: `start` lies after `end`.
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        Bounds(start=start, end=end)
        watermarks, grid = await self.market(series).watermarks(series, end), series.grid
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
        watermarks = await self.market(series).watermarks(series, window.end)
        return await self._outlook(series, window, watermarks)

    async def remaining(self, series: Series, window: Window) -> Outlook:
        """Tell what is left of a window that `window` gave, as far as the coverage tells.

        No exchange is asked: all that lies in such a window was closed when it was given.
        """
        market = self.market(series)
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

        After a step with a delay the same is tried again: the caller waits, or stops. Of a series
        that the exchange refuses the rest is lost.
        """
        filler, given_up = self.filler(order, priority), list[Window]()
        while step := await filler.step(series, window, given_up):
            if step.refusal:
                rest = subtract(step.gaps, [missing.window for missing in step.lost])
                refused = [Missing(gap, step.refusal) for gap in rest]
                step = replace(step, lost=[*step.lost, *refused])
            given_up += [missing.window for missing in step.lost]
            yield step

    def filler(self, order: Order, priority: Priority) -> "ChunkFiller":
        """Return a filler of one series, for a worker that decides itself about each step."""
        return ChunkFiller(self, self._candles, order, priority)

    async def gaps(
        self, series: Series, window: Window, given_up: Sequence[Window] = ()
    ) -> Remaining:
        """Tell which parts of `window` are still to be fetched.

        Args:
            series: Whose candles.
            window: On the grid.
            given_up: Windows that are not to be asked for again.

        Raises:
            ExchangeError: The exchange's clock was needed and could not be read.
        """
        context = RequestContext.at(Priority.BACKFILL)
        watermarks = await self.market(series).watermarks(series, window.end, context)
        known = window.clip(watermarks.history_start, watermarks.closed_until)
        missing = subtract(await self._store.uncovered(series.id, known), given_up)
        forgotten = intersect(
            missing, known.clip(watermarks.history_start, watermarks.retention_start)
        )
        error = HistoryUnavailable(series.exchange, watermarks.retention_start)
        return Remaining(subtract(missing, forgotten), [Missing(part, error) for part in forgotten])

    def chunk_grid(self, series: Series) -> ChunkGrid:
        """Return the chunks in which a series is filled."""
        facts = self.market(series).adapter.facts
        pages = max(_CHUNK_PAGES, 2 * facts.pages_per_request)
        return ChunkGrid(series.grid, facts.page_size, pages)

    def terms(self, series: Series) -> Terms:
        """Give the terms of the series' exchange."""
        return self.market(series).terms

    def market(self, series: Series) -> MarketContext:
        """Return the market of a series."""
        return self.markets[series.exchange, series.symbol.market_type]


class ChunkFiller:
    """Fills one series step by step, and counts the refusals in a row."""

    def __init__(
        self, bulk: BulkFill, candles: CandleService, order: Order, priority: Priority
    ) -> None:
        self._bulk = bulk
        self._candles = candles
        self._choose = order
        self._context = RequestContext.at(priority)
        self._gaps: Sequence[Window] = ()
        self._refusals = 0

    async def step(self, series: Series, window: Window, given_up: Sequence[Window]) -> Step | None:
        """Try the next chunk of `window`; None: nothing is left of it.

        Waits a moment if the step before changed nothing: this one might not either.
        """
        try:
            remaining = await self._bulk.gaps(series, window, given_up)
        except MdpError as error:
            return Step(None, [], error, self._gaps or [window])
        if not remaining.gaps:
            return Step(None, remaining.lost, None, []) if remaining.lost else None
        if remaining.gaps == self._gaps:
            await asyncio.sleep(_PAUSE_SECONDS)
        self._gaps = remaining.gaps
        chunk = self._choose(remaining.gaps, self._bulk.chunk_grid(series))
        lost, delay = await self._fill(series, chunk)
        refusal = self._counted(refusal_of(lost, chunk))
        return Step(chunk, [*remaining.lost, *lost], delay, remaining.gaps, refusal)

    async def _fill(self, series: Series, chunk: Window) -> tuple[list[Missing], MdpError | None]:
        """Have the store hold a chunk; return lost windows, and a passing obstacle."""
        slots = series.grid.count(chunk.start, chunk.end)
        bounds = Bounds(start=chunk.start, end=chunk.end, partial=True, pages=slots)
        try:
            answer = await self._candles.get(series, bounds, self._context)
        except _LASTING as error:
            return [Missing(chunk, error)], None
        except MdpError as error:
            return [], error
        lost = [part for part in answer.missing if isinstance(part.error, _LASTING)]
        delays = [part.error for part in answer.missing if not isinstance(part.error, _LASTING)]
        return lost, delays[0] if delays else None

    def _counted(self, refusal: MdpError | None) -> MdpError | None:
        """Return the refusal once it is the series itself that is refused."""
        self._refusals = self._refusals + 1 if refusal else 0
        return refusal if self._refusals >= _REFUSALS else None


def refusal_of(lost: Sequence[Missing], chunk: Window) -> MdpError | None:
    """Return the exchange's refusal, if it refused all of a chunk; else None."""
    refused = [part for part in lost if isinstance(part.error, ExchangeRejected)]
    if not refused or subtract([chunk], [part.window for part in refused]):
        return None
    return refused[0].error


def _enclosing(one: Window, other: Window) -> Window:
    return Window(min(one.start, other.start), max(one.end, other.end))
