"""Bars of a series in UDF's form."""

from datetime import datetime

import numpy as np
from fastapi import Request

from api.dialects.series_rows import SeriesRows
from api.requests.owners import owner_of
from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import Bounds, CandleQuery
from mdp_core.domain.series import Series
from mdp_core.errors import HistoryUnavailable, WindowTooLarge
from mdp_core.ratelimit.context import RequestContext

_LEAST_BARS = 2
# More than that is loaded by a job, while the chart asks again.
_PAGES = 5


async def bars_of(
    request: Request,
    series: Series,
    window: tuple[datetime, datetime],
    countback: int,
    context: RequestContext,
) -> dict[str, object]:
    """Return the bars of a window, and older ones until there are `countback`.

    Raises:
        MdpError: As `CandleService.get`.
    """
    rows: SeriesRows = request.state.dialects.rows
    start, end = window
    start = min(start, end)
    try:
        found = await _inside(rows, series, Bounds(start=start, end=end, pages=_PAGES), context)
    except WindowTooLarge:
        return await _begun(request, series, window)
    wanted, older_before = max(countback, _LEAST_BARS), start
    if len(found) < wanted:
        newest = Bounds(end=end, limit=wanted)
        found, answer = await rows.candles(series, newest, context)
        if not len(found) and answer.next is None:
            return {"s": "no_data"}
        older_before = answer.window.start
    if not len(found):
        return {"s": "no_data", "nextTime": to_ms(older_before) // 1000}
    return _bars(found)


async def _inside(
    rows: SeriesRows, series: Series, bounds: Bounds, context: RequestContext
) -> Candles:
    """Return the bars within bounds, from the earliest that can be had on."""
    try:
        return (await rows.candles(series, bounds, context))[0]
    except HistoryUnavailable as error:
        if bounds.end is not None and error.earliest >= bounds.end:
            return Candles.empty()
        later = Bounds(start=error.earliest, end=bounds.end, pages=bounds.pages)
        return (await rows.candles(series, later, context))[0]


async def _begun(
    request: Request, series: Series, window: tuple[datetime, datetime]
) -> dict[str, object]:
    """Have a job load a window; `no_data` would mean the end of history."""
    symbol = series.symbol
    words = (symbol.exchange, symbol.market_type, symbol.native, series.interval.value)
    query = CandleQuery(*words, start=window[0], end=window[1])
    followed = await request.state.services.backfills.request(query, owner_of(request))
    seconds = round(followed.left.seconds) if followed.left else 0
    return {"s": "error", "errmsg": f"being loaded, about {max(seconds, 1)} s"}


def _bars(candles: Candles) -> dict[str, object]:
    columns = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
    bars: dict[str, object] = {"s": "ok", "t": np.floor_divide(candles.time, 1000).tolist()}
    return bars | {key: getattr(candles, name).tolist() for key, name in columns.items()}
