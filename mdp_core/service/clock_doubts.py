"""Requests beyond what the clocks agree on: what is served, what is missing.

What ended before the earlier clock is served as ever. The rest is an error, or missing where a
partial answer will do.
"""

from datetime import datetime

from mdp_core.domain.clock import EPOCH
from mdp_core.domain.queries import Bounds, Missing
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window
from mdp_core.errors import ClockSkew, ExchangeError, ExchangeUnavailable
from mdp_core.fill.market import MarketContext
from mdp_core.ratelimit.context import RequestContext
from mdp_core.service.scan_request import ScanRequest, ScanResult
from mdp_core.storage.candles.candle_reader import CandleReader


async def agreed_watermarks(
    market: MarketContext, series: Series, bounds: Bounds, context: RequestContext
) -> tuple[Watermarks, ExchangeError | None]:
    """Return what can be asked for now, and why nothing is known beyond it.

    Rows from a start on may be found before that, and a partial answer ends there; everything else
    that reaches beyond fails.

    Raises:
        ExchangeUnavailable: The window reaches beyond what is known.
    """
    clock = market.exchange_clock
    try:
        return await clock.watermarks_for_lookup(series, bounds.end, context), None
    except ExchangeUnavailable as error:
        may_end_before = bounds.start is not None and bounds.end is None
        if not may_end_before and not bounds.partial:
            raise
        return await clock.watermarks(series, EPOCH, context), error


async def has_all_rows(reader: CandleReader, request: ScanRequest, found: ScanResult) -> bool:
    """Return whether all wanted rows were found before the end of what is known."""
    if request.from_end:
        return False  # the newest ones lie beyond it
    if found.window.end < request.asked.end:
        return True
    wanted = request.rows - len(found.edge)
    if wanted <= 0:
        return True
    snapshot = await reader.first_rows(request.series.id, found.stored, wanted)
    return snapshot.count >= wanted


def beyond_agreement(
    market: MarketContext, request: ScanRequest, end: datetime | None, problem: ExchangeError
) -> list[Missing]:
    """Return the missing part of an answer: up to the later clock, or an `end`."""
    grid, begins = request.series.grid, request.asked.end
    closed = market.exchange_clock.presumed(request.series).closed_until
    if isinstance(problem, ClockSkew):
        closed = grid.floor(max(problem.their_time, problem.our_time))
    stop = closed if end is None else min(grid.ceil(end), closed)
    return [Missing(Window(begins, stop), problem)] if begins < stop else []
