"""Hyperliquid as its info endpoint speaks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar, cast

import orjson
from fastapi import Response
from typing_extensions import override

from api.dialects.dialect import Call, Dialect, Json, answer_json, time_of
from api.dialects.numbers import decimal
from api.dialects.printing import PrintedRows, array_of
from api.dialects.series_rows import NativeName, SeriesRows
from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval
from mdp_core.domain.queries import Bounds
from mdp_core.domain.series import Series
from mdp_core.ratelimit.context import RequestContext

_INFO = "/info"
_INTERVALS = frozenset(Interval)
_SNAPSHOT = "candleSnapshot"
_MOST_ROWS = 5000
# The store never asks for what may be forgotten while it is on its way.
_MARGIN_SLOTS = 2
_MILLISECOND = timedelta(milliseconds=1)

# hyperliquid.gitbook.io, rate-limits-and-user-limits
_LIGHT = {"allMids": 2, "l2Book": 2, "exchangeStatus": 2, "clearinghouseState": 2, "orderStatus": 2}
_LIGHT["spotClearinghouseState"] = 2
_WEIGHT, _USER_ROLE = 20, 60
_ROWS_PER_WEIGHT, _MOST_RATES_WEIGHT = 60, 25

_LISTS = {"meta": 30, "spotMeta": 30, "perpDexs": 30, "allPerpMetas": 30}
_PRICED_LISTS = {"metaAndAssetCtxs": 5, "spotMetaAndAssetCtxs": 5}


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The request of a snapshot; `end` None: now."""

    name: NativeName
    start: datetime
    end: datetime | None


class HyperliquidDialect(Dialect):
    """`candleSnapshot` from here; the rest from the exchange."""

    exchange: ClassVar[str] = "hyperliquid"
    market_type: ClassVar[str] = "perp"
    methods: ClassVar[frozenset[str]] = frozenset({"GET", "POST"})

    @override
    async def answer(
        self, call: Call, rows: SeriesRows, context: RequestContext
    ) -> Response | None:
        if call.method != "POST":
            return None
        if call.path != _INFO:
            return self.refusal(405, "only /info is answered here")
        asked = self._snapshot(call.json)
        series = await rows.series(asked.name, context) if asked else None
        bounds = _bounds(series, asked, rows.now()) if series and asked else None
        if series is None or bounds is None:
            return None
        form = PrintedRows(self.exchange, "}", partial(_print, series=series))
        found = await rows.printed(series, bounds, form, context)
        return None if found is None else answer_json(array_of(found))

    def _snapshot(self, body: Json) -> _Snapshot | None:
        """Read what is asked for; None: it is no snapshot, or one that is refused."""
        told = body.get("req")
        if body.get("type") != _SNAPSHOT or not isinstance(told, dict):
            return None
        asked = cast("Json", told)
        coin, interval = asked.get("coin"), asked.get("interval")
        start, end = _time(asked.get("startTime")), _time(asked.get("endTime"))
        if not isinstance(coin, str) or start is None or str(interval) not in _INTERVALS:
            return None
        if end is None and asked.get("endTime") is not None:
            return None
        name = NativeName(self.exchange, self.market_type, coin, Interval(str(interval)))
        return _Snapshot(name, start, end)

    @override
    def weigh(self, call: Call) -> float:
        match call.json.get("type"):
            case "candleSnapshot":
                return _WEIGHT + _MOST_ROWS // _ROWS_PER_WEIGHT
            case "fundingHistory":
                return _WEIGHT + _MOST_RATES_WEIGHT
            case "userRole":
                return _USER_ROLE
            case kind:
                return _LIGHT.get(str(kind), _WEIGHT)

    @override
    def charged(self, call: Call, body: bytes) -> float:
        if call.json.get("type") == _SNAPSHOT:
            return _WEIGHT + body.count(b'"T":') // _ROWS_PER_WEIGHT
        return self.weigh(call)

    @override
    def kept_seconds(self, call: Call) -> float:
        return {**_LISTS, **_PRICED_LISTS}.get(str(call.json.get("type")), 0)

    @override
    def refusal(self, status: int, text: str) -> Response:
        """An object without `code` and `msg` would crash the exchange's own SDK."""
        if status == 429:  # noqa: PLR2004 - too many requests
            return Response(b"null", status, media_type="application/json")
        return Response(text.encode(), status, media_type="text/plain")


def _time(value: object) -> datetime | None:
    return time_of(value) if type(value) is int else None


def _bounds(series: Series, asked: _Snapshot, now: datetime) -> Bounds | None:
    """Return what the store can answer as the exchange does; None: nothing.

    A candle that only overlaps the start belongs to the answer. The exchange remembers 5,000
    candles, and tells of days before trading began, which the store drops.
    """
    grid, begins = series.grid, series.history_start
    start = grid.floor(asked.start)
    end = None if asked.end is None else asked.end + _MILLISECOND
    remembered = grid.at(grid.index(now) + 1 - _MOST_ROWS)
    bounds = Bounds(start=start, end=end, limit=_MOST_ROWS) if not end or end > start else None
    if bounds is None or begins is None or start < begins:
        return None
    if start >= grid.at(grid.index(remembered) + _MARGIN_SLOTS):
        return bounds
    if end is None or end > remembered:
        return None
    newest = grid.at(grid.index(grid.ceil(end)) - _MOST_ROWS)
    return replace(bounds, start=max(start, newest), partial=True)


def _print(candles: Candles, series: Series) -> Iterator[str]:
    """Print rows as objects, prices and volumes as strings."""
    names = orjson.dumps({"s": series.symbol.native, "i": series.interval.value}).decode()[1:-1]
    columns = (candles.open, candles.close, candles.high, candles.low, candles.volume)
    numbers = [[decimal(number) for number in column.tolist()] for column in columns]
    counts = map(int, candles.trades.tolist())
    grid = series.grid
    return (
        f'{{"t":{time},"T":{to_ms(grid.next(time_of(time) or grid.at(0))) - 1},{names},'
        f'"o":"{o}","c":"{c}","h":"{h}","l":"{low}","v":"{v}","n":{n}}}'
        for time, o, c, h, low, v, n in zip(candles.time.tolist(), *numbers, counts, strict=True)
    )
