"""Serve the candles of a window; what the store lacks is fetched first.

A request is aligned to the series' grid and cut at the last closed candle; what one query of the
store does not answer is filled by a scan; then the answer is described, and its candles are read
block by block while they are sent.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from mdp_core.domain.candles import Candles
from mdp_core.domain.queries import Answer, Bounds, CandleQuery, Continuation, Limits
from mdp_core.domain.series import AGREED, SEARCHED, Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, intersect
from mdp_core.errors import (
    ExchangeError,
    ExchangeUnavailable,
    LimitTooLarge,
    RateLimited,
    SeriesRepaired,
    StoreUnavailable,
)
from mdp_core.fill.market import MarketContext
from mdp_core.logs import note
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.resolver import SeriesResolver
from mdp_core.service.answer_counts import AnswerCounts
from mdp_core.service.clock_doubts import agreed_watermarks, beyond_agreement, has_all_rows
from mdp_core.service.scan import RowScan
from mdp_core.service.scan_request import ScanRequest, ScanResult
from mdp_core.storage.candles.candle_reader import Block, CandleReader, Doubts
from mdp_core.storage.catalog.usage import Usage

_DEFAULT_ROWS = 500
# How long a request waits for an exchange that is to tell a history start again.
_DOUBT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Request:
    """Bounds with everything that they mean now."""

    bounds: Bounds
    market: MarketContext
    watermarks: Watermarks
    scan: ScanRequest
    problem: ExchangeError | None
    """The reason why nothing is known beyond the watermarks."""


class CandleService:
    """Answers requests for candles: those of the API, the syncer and the backfill."""

    def __init__(
        self,
        reader: CandleReader,
        resolver: SeriesResolver,
        *,
        markets: Mapping[tuple[str, str], MarketContext],
        limits: Limits,
        usage: Usage,
    ) -> None:
        self._reader = reader
        self._resolver = resolver
        self.markets = markets
        self._limits = limits
        self.usage = usage
        self.counts = AnswerCounts()

    def interactive(self, subject: str = "") -> RequestContext:
        """Return the context of a token's subject that waits as long as a request may."""
        return RequestContext.within(self._limits.deadline_seconds, subject)

    async def resolve(self, query: CandleQuery, context: RequestContext) -> Series:
        """Return the series that a query names.

        Raises:
            LimitTooLarge: More rows are asked for than an answer may have.
            UnknownExchange, UnknownMarketType, UnknownSymbol, UnsupportedInterval: As they say.
            ExchangeError: The exchange had to be asked and failed.
        """
        self._rows(query)
        names = (query.exchange, query.market_type, query.symbol, query.interval)
        async with _deadline(query.exchange, context):
            series = await self._resolver.series(*names, context)
        note(series=str(series))  # now: a failure below has its line too
        return series

    async def get(self, series: Series, bounds: Bounds, context: RequestContext) -> Answer:
        """Have everything that the answer needs in the store, and describe the answer.

        Raises:
            InvalidQuery: The window or the limit makes no sense, or too much must be fetched.
            ExchangeError: Something is missing and could not be fetched; what could be is stored.
            StoreUnavailable: The database can't be had.
        """
        async with _deadline(series.exchange, context):
            series, is_doubted = await self._believed(series, bounds, context)
            request = await self._prepare(series, bounds, context)
            scan = self._scan(request, context)
            found = await scan.look_up()
            planned = time.perf_counter()
            if not found:
                confirmed = await self._confirmed(request, series, context)
                if confirmed is not request:
                    request, scan = confirmed, self._scan(confirmed, context)
                found = await scan.scan()
            found = await self._with_missing(request, found)
        timings = {"plan": planned - context.begun, "fetch": time.perf_counter() - planned}
        answer = _answer(request, found, context, timings)
        if is_doubted:  # by one answer nothing was traded in all of it
            answer = replace(answer, unconfirmed=[answer.window])
        if context.priority is Priority.INTERACTIVE:
            self.counts.note(answer)
        for due in [doubts.due for doubts in found.doubts if doubts.due]:
            request.market.rechecker.begin(series, due)
        note(
            window=str(answer.window),
            cache=answer.cache,
            upstream_requests=answer.upstream_requests,
        )
        return answer

    async def _with_missing(self, request: _Request, found: ScanResult) -> ScanResult:
        """Return what was found, with what lies beyond the clocks' agreement.

        Raises:
            ExchangeError: Wanted rows may lie there, and a partial answer won't do.
        """
        problem, scan = request.problem, request.scan
        if problem is None or await has_all_rows(self._reader, scan, found):
            return found
        if not scan.partial:
            raise problem
        beyond = beyond_agreement(request.market, scan, request.bounds.end, problem)
        if not beyond:
            return found
        window = Window(found.window.start, beyond[-1].window.end)
        return replace(found, window=window, missing=[*found.missing, *beyond])

    async def read(self, answer: Answer, window: Window, columns: Collection[str]) -> Block:
        """Read the stored candles of an answer's series that open in `window`, ascending.

        Only `columns` are sure to be read; of the others, those that few ask for are NaN. Outside
        of the answer there may be more to come, unless the whole window is covered.

        Raises:
            SeriesRepaired: They are no longer those that the answer speaks of.
            StoreUnavailable: The database can't be had.
        """
        block = await self._reader.read(
            answer.series.id, window, columns, epoch=answer.versions.epoch
        )
        if block.version > answer.versions.epoch:
            raise SeriesRepaired(str(answer.series))
        return block

    async def holds(self, answer: Answer) -> bool:
        """Return whether the stored part of an answer is still the same."""
        snapshot = await self._reader.snapshot(answer.series.id, answer.stored)
        return snapshot.versions.of(answer.stored) <= answer.versions.epoch

    async def _prepare(self, series: Series, bounds: Bounds, context: RequestContext) -> _Request:
        market = self.markets[series.exchange, series.symbol.market_type]
        with context.upstream.waiting():
            reached, problem = await agreed_watermarks(market, series, bounds, context)
        request = self._request(series, bounds, reached, problem)
        asked = request.scan.asked
        note(window=str(asked))
        if context.priority is Priority.INTERACTIVE:
            self.usage.note(series.id, at_edge=asked.end >= request.watermarks.settled_until)
        return request

    def _request(
        self, series: Series, bounds: Bounds, reached: Watermarks, problem: ExchangeError | None
    ) -> _Request:
        market = self.markets[series.exchange, series.symbol.market_type]
        watermarks = market.ranges.narrowed(series, reached)
        rows, pages = self._rows(bounds), bounds.pages or self._limits.pages
        within = _settled_watermarks(series, market, watermarks) if bounds.settled else watermarks
        asked = _aligned(bounds, series, within, max(rows, pages * market.page_size))
        from_end = bounds.start is None
        scan = ScanRequest(series, asked, rows, pages, from_end, bounds.partial)
        return _Request(bounds, market, watermarks, scan, problem)

    async def _confirmed(
        self, request: _Request, series: Series, context: RequestContext
    ) -> _Request:
        """Return a request that may fetch: what it reaches is closed by both clocks.

        What was looked up may reach farther, where our own clock alone told what is closed.

        Raises:
            ExchangeError: The exchange's clock could not be read, or the clocks are apart.
        """
        if request.problem:
            return request
        bounds, clock = request.bounds, request.market.exchange_clock
        with context.upstream.waiting():
            reached = await clock.watermarks(series, bounds.end, context)
        if reached.closed_until >= request.watermarks.closed_until:
            return request
        return self._request(series, bounds, reached, None)

    def _scan(self, request: _Request, context: RequestContext) -> RowScan:
        return RowScan(self._reader, request.market, request.watermarks, request.scan, context)

    async def _believed(
        self, series: Series, bounds: Bounds, context: RequestContext
    ) -> tuple[Series, bool]:
        """Return the series, and whether a start that empties the window is in doubt.

        It is asked for again first. That what was told once can't be asked for now makes it no
        falser: it is answered, as unconfirmed.
        """
        begins, end = series.history_start, bounds.end
        is_told_once = series.history_witnesses < AGREED and series.history_source != SEARCHED
        if begins is None or end is None or end > begins or not is_told_once:
            return series, False
        try:
            async with asyncio.timeout(_DOUBT_SECONDS):
                with context.upstream.waiting():
                    return await self._resolver.doubt_history_start(series, context), False
        except (TimeoutError, ExchangeUnavailable, RateLimited):
            return series, True

    def _rows(self, bounds: Bounds) -> int:
        most = self._limits.rows
        if bounds.limit is not None and bounds.limit > most:
            raise LimitTooLarge(bounds.limit, most)
        default = most if bounds.start is not None else _DEFAULT_ROWS
        return bounds.limit or min(default, most)


@asynccontextmanager
async def _deadline(exchange: str, context: RequestContext) -> AsyncGenerator[None]:
    """End the wait at the context's deadline, naming what was waited for just then."""
    try:
        async with asyncio.timeout_at(context.deadline):
            yield
    except TimeoutError as error:
        if not context.upstream.was_interrupted:
            what = "it did not answer in time"
            raise StoreUnavailable(what) from error
        what = "could not be asked for everything in time; what was fetched is kept"
        raise ExchangeUnavailable(exchange, what) from error


def _aligned(bounds: Bounds, series: Series, watermarks: Watermarks, slots_back: int) -> Window:
    """Round both bounds up to the grid, and cut at the last closed candle.

    Without a start, begin so many slots before the end.
    """
    grid, end = series.grid, watermarks.closed_until
    if bounds.end is not None:
        end = min(grid.ceil(bounds.end), end)
    if bounds.start is not None:
        start = grid.ceil(bounds.start)
        return Window(start, max(start, end))
    stop = grid.index(end)
    begins = series.history_start or watermarks.history_start
    first = max(stop - slots_back, min(grid.index(begins), stop))
    return Window(grid.at(first), end)


def _settled_watermarks(
    series: Series, market: MarketContext, watermarks: Watermarks
) -> Watermarks:
    """Cut watermarks where finality ends: no fresh provisional range is final."""
    ranges = market.ranges.fresh(series, Window(watermarks.history_start, watermarks.closed_until))
    ends = [watermarks.closed_until, watermarks.settled_until]
    return replace(watermarks, closed_until=min(ends + [part.window.start for part in ranges]))


def _answer(
    request: _Request, found: ScanResult, context: RequestContext, timings: Mapping[str, float]
) -> Answer:
    series, watermarks = request.scan.series, request.watermarks
    stored = found.stored
    if series.history_start is None and request.market.adapter.facts.supports_first_candle:
        # The exchange has no first candle yet, and may have one any time: nothing of that is final.
        stored = Window(found.window.start, found.window.start)
    answer = Answer(
        series=series,
        window=found.window,
        settled_until=min(stored.end, watermarks.settled_until),
        stored=stored,
        edge=found.edge,
        missing=found.missing,
        next=_next(request, found.window),
        cache=found.cache,
        upstream_requests=context.upstream.requests,
        versions=found.versions,
        timings={step: seconds * 1000 for step, seconds in timings.items()},
        unconfirmed=_unconfirmed(found.doubts, found.window),
    )
    return _settled(answer) if request.bounds.settled else answer


def _unconfirmed(doubts: Sequence[Doubts], window: Window) -> list[Window]:
    return [part for doubt in doubts for part in intersect(doubt.windows, window)]


def _next(request: _Request, window: Window) -> Continuation | None:
    if request.scan.from_end:
        has_more = window.start > request.watermarks.history_start and not window.is_empty
        return Continuation(None, window.start) if has_more else None
    asked = request.scan.asked
    return Continuation(window.end, asked.end) if window.end < asked.end else None


def _settled(answer: Answer) -> Answer:
    """Cut an answer where finality ends."""
    if answer.settled_until >= answer.window.end:
        return answer
    window = answer.window.clip(answer.window.start, answer.settled_until)
    older = answer.next if answer.next and answer.next.start is None else None
    doubts = intersect(answer.unconfirmed, window)
    changed = {"window": window, "stored": window, "unconfirmed": doubts}
    return replace(answer, **changed, edge=Candles.empty(), next=older)
