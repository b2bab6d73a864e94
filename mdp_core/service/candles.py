"""Cache-through: the candles of a window, from the store where it has them, else fetched first.

A request is aligned to the series' grid and cut at the last closed candle; what one look at the
store doesn't find, a walk has it hold; then the answer is described, and its candles are read in
pieces while they are sent.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import EPOCH
from mdp_core.domain.queries import Answer, CacheState, CandleQuery, Continuation, Limits
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window
from mdp_core.errors import (
    ExchangeError,
    ExchangeUnavailable,
    InvalidWindow,
    LimitTooLarge,
    SeriesRepaired,
)
from mdp_core.fill.market import MarketContext
from mdp_core.logs import note
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.service.lookup import CachedRange, CacheLookup
from mdp_core.service.scan import FromEnd, FromStart, RowScan, ScanResult, Wanted
from mdp_core.storage.candles.candle_reader import Block, CandleReader
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.catalog.usage import Usage

_DEFAULT_ROWS = 500
# Long enough that a query's own cost does not count, short enough that reading, encoding and
# sending overlap (measured).
_BLOCK_SLOTS = 20_000
# Of a request's time: the wait for tokens ends sooner than the request, so that it is told as such.
_PATIENT_PART = 0.9


@dataclass(frozen=True, slots=True)
class Piece:
    """What an answer needs of one block; blocks lie on a fixed grid of 20,000 slots.

    `block` is the whole block's window, `window` the part that the answer needs.
    """

    block: Window
    window: Window


@dataclass(frozen=True, slots=True)
class _Request:
    """A query with everything that it means now."""

    series: Series
    market: MarketContext
    watermarks: Watermarks
    wanted: Wanted
    problem: ExchangeError | None
    """Why nothing can be told of what lies beyond the watermarks."""


class CandleService:
    """Answers requests for candles; whoever needs candles asks here."""

    def __init__(  # noqa: PLR0913 - its collaborators
        self,
        store: CandleStore,
        reader: CandleReader,
        metadata: SeriesResolver,
        *,
        markets: Mapping[tuple[str, str], MarketContext],
        limits: Limits,
        usage: Usage,
    ) -> None:
        self._store = store
        self._reader = reader
        self._metadata = metadata
        self._markets = markets
        self._limits = limits
        self._usage = usage

    async def get(self, query: CandleQuery, priority: Priority = Priority.INTERACTIVE) -> Answer:
        """Have everything that the answer needs in the store, and describe the answer.

        Nobody's client waits for what is not interactive: that has no deadline.

        Raises:
            InvalidQuery: The window or the limit makes no sense, or too much must be fetched.
            UnknownExchange, UnknownMarketType, UnknownSymbol, UnsupportedInterval: As they say.
            ExchangeError: Something is missing and could not be fetched; what could be is stored.
            StoreUnavailable: The database can't be had.
        """
        rows = self._rows(query)
        timings: dict[str, float] = {}
        context = self._context(priority)
        async with self._deadline(query.exchange, priority):
            with _timed(timings, "plan"):
                request = await self._prepare(query, rows, context)
                hit = await self._hit(query, request)
            with _timed(timings, "fetch"):
                hit, cache = (hit, "hit") if hit else await self._fetch(query, request)
        if request.problem and hit.found.window.end >= request.wanted.asked.end:
            raise request.problem  # the rows that are wanted were not found before
        found, asked, watermarks = (
            _known(hit.found, request),
            request.wanted.asked,
            request.watermarks,
        )
        answer = Answer(
            series=request.series,
            window=found.window,
            settled_until=min(found.stored.end, watermarks.settled_until),
            stored=found.stored,
            edge=found.edge,
            missing=found.missing,
            next=_next(query, asked, found, watermarks),
            cache=cache,
            upstream_requests=context.upstream.requests,
            epoch=hit.epoch,
            timings=timings,
        )
        answer = _settled(answer) if query.settled else answer
        _note(answer)
        return answer

    async def read(self, answer: Answer, window: Window, columns: Collection[str]) -> Block:
        """Read the stored candles of an answer's series that open in `window`, ascending.

        Only `columns` are sure to be read; of the others, those that few ask for are NaN. Outside
        of the answer there may be more to come, unless the whole window is covered.

        Raises:
            SeriesRepaired: They are no longer those that the answer speaks of.
            StoreUnavailable: The database can't be had.
        """
        block = await self._reader.read(answer.series.id, window, columns, epoch=answer.epoch)
        if block.epoch != answer.epoch:
            raise SeriesRepaired(str(answer.series))
        return block

    async def holds(self, answer: Answer) -> bool:
        """Tell whether what is stored of an answer is what it was: nothing was repaired since."""
        look = await self._reader.look(answer.series.id, answer.stored)
        return look.epoch == answer.epoch

    async def _prepare(self, query: CandleQuery, rows: int, context: RequestContext) -> _Request:
        series = await self._metadata.series(
            query.exchange, query.market_type, query.symbol, query.interval, context
        )
        note(series=str(series))  # now: what fails below has its line too
        market = self._markets[query.exchange, query.market_type]
        watermarks, problem = await _watermarks(market, series, query, context)
        asked = self._align(query, series, _final_reach(query, series, market, watermarks), rows)
        note(window=str(asked))
        if context.priority is Priority.INTERACTIVE:
            self._usage.note(series.id, at_edge=asked.end >= watermarks.settled_until)
        pages = query.pages or self._limits.pages
        wanted = Wanted(asked, rows, pages, query.partial, context)
        return _Request(series, market, watermarks, wanted, problem)

    async def _hit(self, query: CandleQuery, request: _Request) -> CachedRange | None:
        """Answer from what is stored and what was just fetched, if that is all that is needed."""
        series, watermarks, wanted = request.series, request.watermarks, request.wanted
        ranges = request.market.ranges.fresh(series, wanted.asked)
        hits = CacheLookup(self._reader, series, watermarks, ranges)
        find = hits.last if query.start is None else hits.first
        return await find(wanted.asked, wanted.rows)

    async def _fetch(self, query: CandleQuery, request: _Request) -> tuple[CachedRange, CacheState]:
        """Have the store hold what it lacks; its epoch is read after that."""
        direction = FromEnd() if query.start is None else FromStart()
        market, series, watermarks = request.market, request.series, request.watermarks
        if request.problem is None:  # what is fetched must be closed by the exchange's own clock
            await market.exchange_clock.watermarks(series, query.end, request.wanted.context)
        walk = RowScan(self._store, market, series, watermarks, request.wanted)
        found = await walk.find(direction)
        look = await self._reader.look(series.id, found.stored)
        return CachedRange(found, look.epoch), walk.cache

    def _context(self, priority: Priority) -> RequestContext:
        if priority is not Priority.INTERACTIVE:
            return RequestContext.at(priority)
        patience = self._limits.deadline_seconds * _PATIENT_PART
        until = asyncio.get_running_loop().time() + patience
        return RequestContext(until=until)

    def _rows(self, query: CandleQuery) -> int:
        if query.start is not None and query.end is not None and query.start > query.end:
            raise InvalidWindow(query.start, query.end)
        if query.limit is not None and query.limit > self._limits.rows:
            raise LimitTooLarge(query.limit, self._limits.rows)
        default = self._limits.rows if query.start is not None else _DEFAULT_ROWS
        return query.limit or min(default, self._limits.rows)

    def _align(
        self, query: CandleQuery, series: Series, watermarks: Watermarks, rows: int
    ) -> Window:
        """Round both bounds up to the grid, and cut at the last closed candle.

        Without a start, look back as many slots as rows are wanted, and 100 pages at least.
        """
        grid = series.grid
        end = (
            watermarks.closed_until
            if query.end is None
            else min(grid.ceil(query.end), watermarks.closed_until)
        )
        if query.start is not None:
            start = grid.ceil(query.start)
            return Window(start, max(start, end))
        pages = (query.pages or self._limits.pages) * self._markets[
            query.exchange, query.market_type
        ].page_size
        first = grid.index(end) - max(rows, pages)
        return Window(
            grid.at(max(first, min(grid.index(watermarks.history_start), grid.index(end)))), end
        )

    @asynccontextmanager
    async def _deadline(self, exchange: str, priority: Priority) -> AsyncGenerator[None]:
        is_waited_for = priority is Priority.INTERACTIVE
        try:
            async with asyncio.timeout(self._limits.deadline_seconds if is_waited_for else None):
                yield
        except TimeoutError as error:
            what = "could not be asked for everything in time; what was fetched is kept"
            raise ExchangeUnavailable(exchange, what) from error


def pieces(answer: Answer) -> list[Piece]:
    """Part the stored window of an answer along the blocks that all answers of a series share."""
    grid, window = answer.series.grid, answer.stored
    if (begins := answer.series.history_start) is not None:
        window = window.clip(begins, window.end)  # nothing to read lies before
    parts: list[Piece] = []
    while not window.is_empty:
        number = grid.index(window.start) // _BLOCK_SLOTS
        block = Window(grid.at(number * _BLOCK_SLOTS), grid.at((number + 1) * _BLOCK_SLOTS))
        parts.append(Piece(block, window.clip(block.start, block.end)))
        window = Window(parts[-1].window.end, window.end)
    return parts


async def _watermarks(
    market: MarketContext, series: Series, query: CandleQuery, context: RequestContext
) -> tuple[Watermarks, ExchangeError | None]:
    """Give what can be asked for now, and why nothing can be told beyond it.

    Rows from a start on may be found before that; everything else that reaches beyond fails.
    """
    problem: ExchangeError | None = None
    try:
        watermarks = await market.exchange_clock.watermarks_for_lookup(series, query.end, context)
    except ExchangeUnavailable as error:
        if query.start is None or query.end is not None:
            raise
        problem = error
        watermarks = await market.exchange_clock.watermarks(series, EPOCH, context)
    return market.ranges.narrowed(series, watermarks), problem


def _final_reach(
    query: CandleQuery, series: Series, market: MarketContext, watermarks: Watermarks
) -> Watermarks:
    """Cut a reach where finality ends, if nothing else is wanted: no fresh tail is final."""
    if not query.settled:
        return watermarks
    ranges = market.ranges.fresh(series, Window(watermarks.history_start, watermarks.closed_until))
    starts = [provisional.window.start for provisional in ranges]
    return replace(
        watermarks, closed_until=min(watermarks.closed_until, watermarks.settled_until, *starts)
    )


def _known(found: ScanResult, request: _Request) -> ScanResult:
    """Take nothing for final where the exchange has no first candle yet: it may have one any time.

    What was found is that there is none, and that is stored nowhere.
    """
    has_begun = request.series.history_start is not None
    if has_begun or not request.market.adapter.facts.supports_first_candle:
        return found
    return replace(found, stored=Window(found.window.start, found.window.start))


def _note(answer: Answer) -> None:
    """Have the request's log line say what was answered, which may be less than was asked for."""
    note(
        window=str(answer.window),
        cache=answer.cache,
        upstream_requests=answer.upstream_requests,
    )


def _next(
    query: CandleQuery, asked: Window, found: ScanResult, watermarks: Watermarks
) -> Continuation | None:
    if query.start is None:
        has_more = found.window.start > watermarks.history_start and not found.window.is_empty
        return Continuation(None, found.window.start) if has_more else None
    has_more = found.window.end < asked.end
    return Continuation(found.window.end, asked.end) if has_more else None


def _settled(answer: Answer) -> Answer:
    """Cut an answer where finality ends."""
    if answer.settled_until >= answer.window.end:
        return answer
    window = answer.window.clip(answer.window.start, answer.settled_until)
    older = answer.next if answer.next and answer.next.start is None else None
    return replace(answer, window=window, stored=window, edge=Candles.empty(), next=older)


@contextmanager
def _timed(timings: dict[str, float], step: str) -> Generator[None]:
    begun = time.perf_counter()
    yield
    timings[step] = (time.perf_counter() - begun) * 1000
