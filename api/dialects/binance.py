"""Binance USD-M futures as `fapi` speaks it."""

import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import starmap
from typing import ClassVar

import orjson
from fastapi import Response
from typing_extensions import override

from api.dialects.dialect import Call, Dialect, answer_json, time_of
from api.dialects.numbers import quoted
from api.dialects.printing import PrintedRows, array_of
from api.dialects.series_rows import NativeName, SeriesRows
from mdp_core.domain.candles import COLUMNS, Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Grid, Interval
from mdp_core.domain.queries import Bounds
from mdp_core.ratelimit.context import RequestContext

_V1 = "/fapi/v1/"
_KLINES = f"{_V1}klines"
_PARAMS = frozenset({"symbol", "interval", "startTime", "endTime", "limit"})
_INTERVALS = frozenset(Interval)
_INTEGER = re.compile(r"[0-9]{1,13}")
_USUAL_ROWS, _MOST_ROWS = 500, 1500
_LIST_SECONDS = 30
_NULL = b",null,"

# Weights from developers.binance.com: with a symbol, and without.
_WEIGHTS = {
    "exchangeInfo": (1, 1),
    "time": (1, 1),
    "ping": (1, 1),
    "fundingRate": (1, 1),
    "fundingInfo": (1, 1),
    "ticker/24hr": (1, 40),
    "ticker/price": (1, 2),
    "ticker/bookTicker": (2, 5),
    "premiumIndex": (1, 10),
    "openInterest": (1, 1),
    "trades": (5, 5),
    "aggTrades": (20, 20),
}
_BY_ROWS = ((99, 1), (499, 2), (1000, 5), (1500, 10))
_OF_DEPTH = ((50, 2), (100, 5), (500, 10), (1000, 20))
_CANDLES = re.compile(r"/fapi/v1/(k|continuousK|indexPriceK|markPriceK|premiumIndexK)lines")
_HEAVIEST = 40

_CODES = {400: -1020, 401: -2015, 405: -1020, 429: -1003, 502: -1001}


class BinanceDialect(Dialect):
    """`klines`, `time` and `ping` from here; the rest from the exchange."""

    exchange: ClassVar[str] = "binance"
    market_type: ClassVar[str] = "perp"

    @override
    async def answer(
        self, call: Call, rows: SeriesRows, context: RequestContext
    ) -> Response | None:
        match call.path:
            case "/fapi/v1/klines":
                return await self._klines(call, rows, context)
            case "/fapi/v1/time" if not call.query:
                now = await rows.exchange_time(self.exchange, self.market_type, context)
                return answer_json(orjson.dumps({"serverTime": to_ms(now)}))
            case "/fapi/v1/ping" if not call.query:
                return answer_json(b"{}")
            case _:
                return None

    async def _klines(
        self, call: Call, rows: SeriesRows, context: RequestContext
    ) -> Response | None:
        """Both bounds are inclusive and hold for the open time."""
        params = call.unique(_PARAMS) or {}
        name, bounds = self._name(params), _bounds(params)
        if name is None or bounds is None:
            return None
        series = await rows.series(name, context)
        if series is None:
            return None
        form = PrintedRows(self.exchange, "]", partial(_print, grid=series.grid))
        found = await rows.printed(series, bounds, form, context)
        if found is None or _NULL in (body := array_of(found)):
            return None  # a number that was not stored is neither zero nor a guess
        return answer_json(body)

    def _name(self, params: dict[str, str]) -> NativeName | None:
        native, interval = params.get("symbol", "").upper(), params.get("interval", "")
        if not native or interval not in _INTERVALS:
            return None
        return NativeName(self.exchange, self.market_type, native, Interval(interval))

    @override
    def weigh(self, call: Call) -> float:
        limit = dict(call.params).get("limit", "")
        if call.path == f"{_V1}depth":
            return _by_rows(limit, _OF_DEPTH, 500)
        if _CANDLES.fullmatch(call.path):
            return _by_rows(limit, _BY_ROWS, 1000)  # without a limit it costs 5 (measured)
        # Other versions of a path cost the same.
        weights = _WEIGHTS.get(re.sub(r"^/fapi/v\d/", "", call.path), (_HEAVIEST, _HEAVIEST))
        return weights[0 if dict(call.params).get("symbol") else 1]

    @override
    def kept_seconds(self, call: Call) -> float:
        return _LIST_SECONDS if call.path == f"{_V1}exchangeInfo" else 0

    @override
    def headers(self, spent: float) -> Mapping[str, str]:
        return {"X-MBX-USED-WEIGHT-1M": str(math.ceil(spent))}

    @override
    def refusal(self, status: int, text: str) -> Response:
        body = orjson.dumps({"code": _CODES.get(status, -1000), "msg": text})
        return Response(body, status, media_type="application/json")


def _by_rows(limit: str, weights: tuple[tuple[int, int], ...], usual: int) -> int:
    rows = int(limit) if _INTEGER.fullmatch(limit) else usual
    return next((weight for most, weight in weights if rows <= most), weights[-1][1])


def _bounds(params: dict[str, str]) -> Bounds | None:
    """Read bounds and limit; None: the exchange refuses them, and says how."""
    numbers = {"limit": str(_USUAL_ROWS), **params}
    given = [numbers.get(name) for name in ("startTime", "endTime", "limit")]
    if any(text is not None and not _INTEGER.fullmatch(text) for text in given):
        return None
    start, end, limit = (None if text is None else int(text) for text in given)
    if limit is None or not 1 <= limit <= _MOST_ROWS:
        return None
    if start is not None and end is not None and start > end:
        return None
    begins = None if start is None else time_of(start)
    ends = None if end is None else time_of(end + 1)
    if (start is not None and begins is None) or (end is not None and ends is None):
        return None
    return Bounds(start=begins, end=ends, limit=limit)


def _print(candles: Candles, grid: Grid) -> Iterator[str]:
    """Print rows of twelve; what is not known is `null`."""
    rows = zip(
        candles.time.tolist(),
        _closes(candles, grid),
        *(getattr(candles, name).tolist() for name in COLUMNS[1:]),
        strict=True,
    )
    return starmap(_row, rows)


def _row(time: int, closes: int, *numbers: float) -> str:
    *prices, quote, trades, taker, taker_quote = numbers
    count = "null" if trades != trades else int(trades)  # noqa: PLR0124 - NaN
    printed = ",".join(map(quoted, prices))
    takers = f"{quoted(taker)},{quoted(taker_quote)}"
    return f'[{time},{printed},{closes},{quoted(quote)},{count},{takers},"0"]'


def _closes(candles: Candles, grid: Grid) -> list[int]:
    """Return the last millisecond of each candle."""
    if not len(candles):
        return []
    slots = grid.indices(candles.time)
    first = int(slots[0])
    nexts = grid.times(first + 1, int(slots[-1]) + 2)
    return (nexts[slots - first] - 1).tolist()
