"""Cache-through: the candles of a window, from the store where it has them, else fetched first.

A request is aligned to the series' grid and cut at the last closed candle; a walk has the store
hold what its rows need; then the answer is described, and its candles are read in blocks while they
are sent.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from mdp_core.answer import Answer, CandleQuery, Continuation
from mdp_core.errors import ExchangeUnavailable, InvalidWindow, LimitTooLarge
from mdp_core.exchanges.http import counting_upstream_requests
from mdp_core.logs import note
from mdp_core.market import Market
from mdp_core.metadata import Metadata
from mdp_core.model import OPTIONAL_COLUMNS, Candles, Series, Window
from mdp_core.planner import Reach
from mdp_core.priority import Priority
from mdp_core.settings import Limits
from mdp_core.store import CandleStore
from mdp_core.usage import Usage
from mdp_core.walk import Found, FromEnd, FromStart, Walk, Wanted

_DEFAULT_ROWS = 500
_BLOCK_SLOTS = 20_000


class CandleService:
    """Answers requests for candles; whoever needs candles asks here."""

    def __init__(
        self,
        store: CandleStore,
        metadata: Metadata,
        markets: Mapping[tuple[str, str], Market],
        limits: Limits,
        usage: Usage,
    ) -> None:
        self._store = store
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
        with counting_upstream_requests() as upstream:
            async with self._deadline(query.exchange, priority):
                with _timed(timings, "plan"):
                    series = await self._metadata.series(
                        query.exchange, query.market_type, query.symbol, query.interval
                    )
                    market = self._markets[query.exchange, query.market_type]
                    reach = await _reach(market, series, query)
                    asked = self._align(query, series, reach, rows)
                    if priority is Priority.INTERACTIVE:
                        self._usage.note(series.id, at_edge=asked.end >= reach.settled)
                with _timed(timings, "fetch"):
                    direction = FromEnd() if query.start is None else FromStart()
                    pages = query.pages or self._limits.pages
                    wanted = Wanted(asked, rows, pages, query.partial, priority)
                    walk = Walk(self._store, market, series, reach, wanted)
                    found = await walk.find(direction)
        answer = Answer(
            series=series,
            window=found.window,
            settled_until=min(found.stored.end, reach.settled),
            stored=found.stored,
            edge=found.edge,
            missing=found.missing,
            next=_next(query, asked, found, reach),
            cache=walk.cache,
            upstream_requests=upstream.requests,
            timings=timings,
        )
        answer = _settled(answer) if query.settled else answer
        _note(answer)
        return answer

    async def blocks(self, answer: Answer, columns: Collection[str]) -> AsyncGenerator[Candles]:
        """Read an answer's candles, ascending, in blocks; a block may be empty.

        Only `columns` are sure to be read; of the others, those that few ask for are NaN.
        The next block is being read while the caller works on one; no connection is held while the
        caller is busy for longer than that.
        """
        wants_all = not OPTIONAL_COLUMNS.isdisjoint(columns)
        read = self._store.read if wants_all else self._store.read_prices
        ahead: asyncio.Task[Candles] | None = None
        try:
            for window in _block_windows(answer):
                reading = asyncio.create_task(read(answer.series.id, window))
                ahead, ready = reading, ahead
                if ready is not None:
                    yield await ready
            if ahead is not None:
                yield await ahead
        finally:
            if ahead is not None:
                ahead.cancel()
        yield answer.edge

    def _rows(self, query: CandleQuery) -> int:
        if query.start is not None and query.end is not None and query.start > query.end:
            raise InvalidWindow(query.start, query.end)
        if query.limit is not None and query.limit > self._limits.rows:
            raise LimitTooLarge(query.limit, self._limits.rows)
        default = self._limits.rows if query.start is not None else _DEFAULT_ROWS
        return query.limit or min(default, self._limits.rows)

    def _align(self, query: CandleQuery, series: Series, reach: Reach, rows: int) -> Window:
        """Round both bounds up to the grid, and cut at the last closed candle.

        Without a start, look back as many slots as rows are wanted, and 100 pages at least.
        """
        grid = series.grid
        edge = min(reach.settled, reach.closed) if query.settled else reach.closed
        end = edge if query.end is None else min(grid.ceil(query.end), edge)
        if query.start is not None:
            start = grid.ceil(query.start)
            return Window(start, max(start, end))
        pages = (query.pages or self._limits.pages) * self._markets[
            query.exchange, query.market_type
        ].page_size
        first = grid.index(end) - max(rows, pages)
        return Window(grid.at(max(first, min(grid.index(reach.begins), grid.index(end)))), end)

    @asynccontextmanager
    async def _deadline(self, exchange: str, priority: Priority) -> AsyncGenerator[None]:
        is_waited_for = priority is Priority.INTERACTIVE
        try:
            async with asyncio.timeout(self._limits.deadline_seconds if is_waited_for else None):
                yield
        except TimeoutError as error:
            what = "could not be asked for everything in time; what was fetched is kept"
            raise ExchangeUnavailable(exchange, what) from error


async def _reach(market: Market, series: Series, query: CandleQuery) -> Reach:
    reach = await market.horizon.reach(series, query.end)
    return market.tails.narrowed(series, reach)


def _note(answer: Answer) -> None:
    """Have the request's log line say what was answered."""
    note(
        series=str(answer.series),
        window=str(answer.window),
        cache=answer.cache,
        upstream_requests=answer.upstream_requests,
    )


def _next(query: CandleQuery, asked: Window, found: Found, reach: Reach) -> Continuation | None:
    if query.start is None:
        has_more = found.window.start > reach.begins and not found.window.is_empty
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


def _block_windows(answer: Answer) -> Iterator[Window]:
    grid, window = answer.series.grid, answer.stored
    while not window.is_empty:
        middle = min(grid.at(grid.index(window.start) + _BLOCK_SLOTS), window.end)
        yield Window(window.start, middle)
        window = Window(middle, window.end)


@contextmanager
def _timed(timings: dict[str, float], step: str) -> Generator[None]:
    begun = time.perf_counter()
    yield
    timings[step] = (time.perf_counter() - begun) * 1000
