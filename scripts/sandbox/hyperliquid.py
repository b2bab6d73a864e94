"""Hyperliquid as its info endpoint answers, under `/hyperliquid`.

Peculiar coins, for those who test against them:

- `BTC`: rows with moving prices and no volume from 2020-08-19 on, trading begins 2023-02-26
- `PURR`: in three of ten minutes there are no trades; the flat row of such a minute is missing at
  first and published two minutes after its close
- `MATIC`: delisted, its history stays; `RNDR`: delisted, answers `[]`
- `xyz:TSLA`: a builder's coin (dex `xyz`); `PURR/USDC` and `@107`: spot
"""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import ClassVar, Final, TypeAlias, cast

import orjson

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import FixedGrid, Grid, Interval, epoch_grid
from scripts.sandbox.candles import Columns, PublishedSeries, TimeSpan, closes_ms
from scripts.sandbox.exchange import (
    Answer,
    CandleReply,
    Reply,
    SandboxCall,
    SandboxExchange,
    SeriesBook,
    SymbolsReply,
    TimeReply,
    array_of,
    in_unit,
    numbers,
    reply,
)
from scripts.sandbox.hyperliquid_lists import LISTS, HyperliquidLists
from scripts.sandbox.limits import ClockMinuteBudget, Refusal, Seconds
from scripts.sandbox.markets import fraction, hashes
from scripts.sandbox.quotes import quote_of
from scripts.sandbox.replay import Replay

_WEIGHT_PER_MINUTE = 1200
_MEMORY = 5000
_WEIGHT = 20
_ROWS_PER_WEIGHT, _RATES_PER_WEIGHT = 60, 20
_DEPTH = 20
_MOST_RATES = 500
_LIGHT = {"allMids": 2, "exchangeStatus": 2, "l2Book": 2}
# Fourteen intervals, no 6h; weeks open on Thursdays and 1M is a block of 30 days: all of them are
# multiples from the epoch (seen in the rows of real series).
GRIDS: Final[Mapping[Interval, Grid]] = {
    interval: epoch_grid(interval) for interval in Interval if interval != Interval.SIX_HOURS
} | {Interval.ONE_MONTH: FixedGrid(timedelta(days=30))}
Params: TypeAlias = Mapping[str, object]
_FIELDS = {
    "time": "t",
    "close_time": "T",
    "open": "o",
    "high": "h",
    "low": "l",
    "close": "c",
    "volume": "v",
    "trades": "n",
}
_MALFORMED = Reply(422, b"Failed to deserialize the JSON body into the target type", "text/plain")
_NULL = Reply(500, b"null")


class Hyperliquid(SandboxExchange):
    """`POST /info` with the types that public clients ask for."""

    name: ClassVar[str] = "hyperliquid"
    candle_params: ClassVar[frozenset[str]] = frozenset({"coin", "startTime", "endTime"})
    fields: ClassVar[Mapping[str, int | str]] = _FIELDS

    def __init__(self, replay: Replay, seconds: Seconds = time.time) -> None:
        """Make the exchange; `seconds` is the real time of the budget."""
        self._lists = HyperliquidLists(replay)
        markets = self._lists.markets
        self._series = SeriesBook(self.name, GRIDS, lambda coin, _: markets[coin], replay)
        self._budget = ClockMinuteBudget(_WEIGHT_PER_MINUTE, seconds, bans=False)

    def answer(self, call: SandboxCall, now_ms: int) -> Answer:
        """Answer a call; a body that is not understood gets 422 and plain text."""
        if (call.method, call.path) != ("POST", "/info"):
            return Reply(404, b"", "text/plain")
        asked, req = str(call.params.get("type")), call.params.get("req")
        if asked == "candleSnapshot" and isinstance(req, dict):
            return self._snapshot(cast("dict[str, object]", req), now_ms)
        found = self._told(asked, call.params, now_ms)
        if isinstance(found, SymbolsReply | TimeReply | Reply):
            return found
        return _NULL if found is None else reply(found)

    def _told(self, asked: str, params: Params, now_ms: int) -> object:
        if asked in LISTS:
            return LISTS[asked](self._lists, params.get("dex") or "", now_ms)
        return _ANSWERS[asked](self, params, now_ms) if asked in _ANSWERS else _MALFORMED

    def charge(self, call: SandboxCall, answer: Answer) -> Refusal | None:
        """Book the weight: 20, and 1 more per 60 candles or 20 rates.

        Source: hyperliquid.gitbook.io, rate-limits-and-user-limits.
        """
        asked = str(call.params.get("type"))
        more = len(answer.columns) // _ROWS_PER_WEIGHT if isinstance(answer, CandleReply) else 0
        if asked == "fundingHistory" and isinstance(answer, Reply):
            more = answer.body.count(b'"coin"') // _RATES_PER_WEIGHT
        return self._budget.charge(call.host, _LIGHT.get(asked, _WEIGHT) + more)

    def refuse(self, refusal: Refusal, now_ms: int) -> Reply:
        """Word a refusal; its body is documented nowhere, clients have to accept `null`."""
        del now_ms
        return Reply(refusal.status, b"null")

    def fail(self) -> Reply:
        """Word an internal error; unlike an unknown coin's it has no body `null`."""
        return Reply(500, b"Internal Server Error", "text/plain")

    def error_body(self, now_ms: int) -> bytes:
        """Give the shape that the exchange's own SDK looks for in errors."""
        del now_ms
        return orjson.dumps({"code": 429, "msg": "Too many requests", "data": None})

    def _snapshot(self, req: Mapping[str, object], now_ms: int) -> Answer:
        coin, interval = req.get("coin"), req.get("interval")
        start, end = req.get("startTime"), req.get("endTime")
        end = now_ms if end is None else end
        if not (isinstance(coin, str) and str(interval) in _INTERVALS and _is_u64(start, end)):
            return _MALFORMED
        if coin not in self._lists.markets:
            return _NULL
        series = self._series(coin, Interval(str(interval)))
        rows = _remembered(series, cast("int", start), cast("int", end), now_ms)
        asked = Interval(str(interval))
        encode = partial(_encode, series, {"s": coin, "i": asked})
        return CandleReply(coin, asked, series, rows, self.fields, encode)

    def status(self, params: Params, now_ms: int) -> TimeReply:
        """Tell the exchange's time."""
        del params
        return TimeReply(now_ms, lambda told: orjson.dumps({"time": told, "specialStatuses": None}))

    def book(self, params: Params, now_ms: int) -> object:
        """Give twenty levels of each side; None: there is no such coin."""
        coin = params.get("coin")
        if not isinstance(coin, str) or coin not in self._lists.markets:
            return None
        quote = quote_of(self._series, coin, now_ms)
        sides = (quote.bids(_DEPTH), quote.asks(_DEPTH)) if quote else ((), ())
        levels = [
            [{"px": level.price, "sz": level.size, "n": level.orders} for level in side]
            for side in sides
        ]
        return {"coin": coin, "time": now_ms, "levels": levels}

    def funding(self, params: Params, now_ms: int) -> object:
        """Give hourly rates, the first 500 of the window; None.

        There is no such perpetual.
        """
        coin, start, end = (params.get(name) for name in ("coin", "startTime", "endTime"))
        end = now_ms if end is None else end
        if not _is_u64(start, end):
            return _MALFORMED
        if not isinstance(coin, str) or coin not in self._lists.perps:
            return None
        series, begins = self._series(coin, Interval.ONE_HOUR), self._lists.perps[coin].traded_ms
        window = TimeSpan(max(cast("int", start), begins), cast("int", end) + 1)
        rows = series.first(window, _MOST_RATES, now_ms)
        rates = (fraction(hashes(1, rows.time)) - 0.3) * 0.00005
        return [
            {"coin": coin, "fundingRate": str(rate), "premium": str(rate), "time": time}
            for time, rate in zip(rows.time.tolist(), rates.round(10).tolist(), strict=True)
        ]


_INTERVALS = frozenset(GRIDS)
_ANSWERS: Final[Mapping[str, Callable[[Hyperliquid, Params, int], object]]] = {
    "exchangeStatus": Hyperliquid.status,
    "l2Book": Hyperliquid.book,
    "fundingHistory": Hyperliquid.funding,
}


def _remembered(series: PublishedSeries, start: int, end: int, now_ms: int) -> Columns:
    """Find the rows that overlap the window: `T >= startTime and t <= endTime`.

    Only the newest 5000 candles exist, and of a wider window the most recent 5000 come back, so
    that the first row may open before `startTime`. Source: the API's documentation, and recorded
    answers.
    """
    asked = TimeSpan(start, end + 1).clipped()
    opens = to_ms(series.grid.floor(from_ms(asked.start_ms)))
    first = max(opens, series.newest(_MEMORY, now_ms))
    return series.last(TimeSpan(first, asked.end_ms), _MEMORY, now_ms)


def _encode(
    series: PublishedSeries, names: Mapping[str, str], rows: Columns, unit: str | None = None
) -> bytes:
    """Print rows as objects.

    Prices and volumes as strings, closing a millisecond early.
    """
    if len(rows) == 0:
        return b"[]"
    unit = unit or "ms"
    closes = closes_ms(series.grid, rows.time) - 1
    prices = (("o", rows.open), ("c", rows.close), ("h", rows.high), ("l", rows.low))
    return array_of(
        [
            numbers(in_unit(rows.time, unit), b'{"t":'),
            numbers(in_unit(closes, unit), b'"T":'),
            [orjson.dumps(names)[1:-1]] * len(rows),
            *(numbers(column, f'"{key}":"'.encode(), b'"') for key, column in prices),
            numbers(rows.volume, b'"v":"', b'"'),
            numbers(rows.trades, b'"n":', b"}"),
        ]
    )


def _is_u64(*values: object) -> bool:
    return all(type(value) is int and value >= 0 for value in values)
