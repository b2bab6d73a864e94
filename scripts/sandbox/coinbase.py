"""Coinbase Exchange (spot) as its public REST host answers, under `/coinbase`.

Peculiar products, for those who test against them:

- `BTC-USD`: one-minute candles since 2015-01-20, hourly and daily ones since 2015-07-20
- `AERO-USD`: one of five minutes has no trades and so no row; `WAXL-USD`: 199 of 200
- `DASH-USD`: rows appear only 45 s after their close, the forming one never
- `MOVE-USD`, `BAL-BTC`, `BTC-USDC`: delisted; `NOVEL-USD`: unknown status; `BTCAUCTION-USD`: its
  base currency is BTC
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, Final

import numpy as np
import orjson

from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Grid, Interval, epoch_grid
from scripts.sandbox.candles import Columns, TimeSpan
from scripts.sandbox.coinbase_listing import (
    BTC_MINUTES_MS,
    UNKNOWN_STATUS,
    currency,
    describe,
    invented,
)
from scripts.sandbox.coinbase_quotes import BOOK_DEPTHS, book, iso, ticker
from scripts.sandbox.exchange import (
    Answer,
    CandleReply,
    Reply,
    SandboxCall,
    SandboxExchange,
    SeriesBook,
    SymbolsReply,
    TimeReply,
    in_unit,
    reply,
)
from scripts.sandbox.limits import Refusal, Seconds, TokenBucket
from scripts.sandbox.markets import SandboxMarket
from scripts.sandbox.quotes import quote_of
from scripts.sandbox.replay import Replay

_MOST_INTERVALS = 300
_DEFAULT_ROWS = 350
# The six granularities, in seconds. Source: docs.cdp.coinbase.com, get-product-candles.
_GRANULARITIES = {
    "60": Interval.ONE_MINUTE,
    "300": Interval.FIVE_MINUTES,
    "900": Interval.FIFTEEN_MINUTES,
    "3600": Interval.ONE_HOUR,
    "21600": Interval.SIX_HOURS,
    "86400": Interval.ONE_DAY,
}
GRIDS: Final[Mapping[Interval, Grid]] = {
    interval: epoch_grid(interval) for interval in _GRANULARITIES.values()
}
_FIELDS = ("time", "low", "high", "open", "close", "volume")
_CANDLES = re.compile(r"/products/([^/]+)/candles")
_MOMENT = re.compile(r"/products/([^/]+)/(ticker|book)")
_PRODUCT = re.compile(r"/products/([^/]+)")


class Coinbase(SandboxExchange):
    """`/products`, one product, its candles, ticker and book.

    `/currencies` and `/time`.
    """

    name: ClassVar[str] = "coinbase"
    candle_params: ClassVar[frozenset[str]] = frozenset({"granularity", "start", "end"})
    fields: ClassVar[Mapping[str, int | str]] = {name: at for at, name in enumerate(_FIELDS)}

    def __init__(self, replay: Replay, seconds: Seconds = time.monotonic) -> None:
        """Make the exchange; `seconds` is the real time of the token bucket."""
        self._markets = replay.markets(self.name, invented())
        self._series = SeriesBook(self.name, GRIDS, self._market, replay)
        self._is_btc_invented = "BTC-USD" not in replay.symbols(self.name)
        # docs.cdp.coinbase.com, exchange/rest-api/rate-limits
        self._bucket = TokenBucket(capacity=15, per_second=10, seconds=seconds)

    def answer(self, call: SandboxCall, now_ms: int) -> Answer:
        """Answer a call; a client has to name itself."""
        if not call.headers.get("user-agent"):
            return _refusal(400, "User-Agent header is required.")
        return self._route(call, now_ms)

    def _route(self, call: SandboxCall, now_ms: int) -> Answer:
        if candles := _CANDLES.fullmatch(call.path):
            return self._candles(candles[1], call.params, now_ms)
        if moment := _MOMENT.fullmatch(call.path):
            return self._moment(call, moment[1], moment[2], now_ms)
        if product := _PRODUCT.fullmatch(call.path):
            return self._product(product[1], now_ms)
        return self._list(call.path, now_ms)

    def _list(self, path: str, now_ms: int) -> Answer:
        match path:
            case "/products":
                products = [self._described(name, now_ms) for name in self._markets]
                return SymbolsReply(products, "id", ("quote_increment", "N/A"), orjson.dumps)
            case "/currencies":
                return reply(self._currencies())
            case "/time":
                return TimeReply(now_ms, _encode_time)
            case _:
                return _refusal(404, "NotFound")

    def charge(self, call: SandboxCall, answer: Answer) -> Refusal | None:
        """Take one token."""
        del answer
        return self._bucket.charge(call.host)

    def refuse(self, refusal: Refusal, now_ms: int) -> Reply:
        """Word a refusal, as clients know it."""
        del now_ms
        return _refusal(refusal.status, "Public rate limit exceeded")

    def fail(self) -> Reply:
        """Word an internal error."""
        return _refusal(500, "Internal server error")

    def _product(self, name: str, now_ms: int) -> Reply:
        is_known = name in self._markets
        return reply(self._described(name, now_ms)) if is_known else _refusal(404, "NotFound")

    def _described(self, name: str, now_ms: int) -> dict[str, object]:
        described = describe(name, self._markets[name], now_ms)
        if described["status"] == UNKNOWN_STATUS and not self.shows_unknown_status:
            described["status"] = "offline"
        return described

    def _moment(self, call: SandboxCall, name: str, asked: str, now_ms: int) -> Reply:
        """Answer for `ticker` or `book`; a product that is not traded has neither."""
        quote = quote_of(self._series, name, now_ms) if name in self._markets else None
        if quote is None:
            return _refusal(404, "NotFound")
        if asked == "ticker":
            return reply(ticker(quote, now_ms))
        level = str(call.params.get("level", "1"))
        if level not in BOOK_DEPTHS:
            return _refusal(400, "Invalid level")
        return reply(book(quote, level, now_ms))

    def _candles(self, name: str, params: Mapping[str, object], now_ms: int) -> Answer:
        """Find the rows. Both bounds are inclusive; without one of them neither counts.

        Source: docs.cdp.coinbase.com, get-product-candles, and measurements.
        """
        if name not in self._markets:
            return _refusal(404, "NotFound")
        granularity = str(params.get("granularity", "60"))
        if granularity not in _GRANULARITIES:
            return _refusal(400, "Unsupported granularity")
        interval = _GRANULARITIES[granularity]
        series = self._series(name, interval)
        if not (params.get("start") and params.get("end")):
            rows = series.last(TimeSpan(0, now_ms + 1), _DEFAULT_ROWS, now_ms)
            return CandleReply(name, interval, series, rows, self.fields, _encode)
        start, end = _time(params["start"]), _time(params["end"])
        if start is None or end is None or start > end:
            return _refusal(400, "Invalid start or end")
        if end - start > _MOST_INTERVALS * int(granularity) * 1000:
            return _refusal(
                400,
                "granularity too small for the requested time range. "
                f"Count of aggregations requested exceeds {_MOST_INTERVALS}",
            )
        rows = series.first(TimeSpan(start, end + 1), _MOST_INTERVALS + 1, now_ms)
        return CandleReply(name, interval, series, rows, self.fields, _encode)

    def _market(self, name: str, interval: Interval) -> SandboxMarket:
        market = self._markets[name]
        if name == "BTC-USD" and interval == Interval.ONE_MINUTE and self._is_btc_invented:
            return replace(market, born_ms=BTC_MINUTES_MS)
        return market

    def _currencies(self) -> list[dict[str, object]]:
        codes = {code for name in self._markets for code in name.split("-", 1)}
        return [currency(code) for code in sorted(codes)]


def _refusal(status: int, message: str) -> Reply:
    return reply({"message": message}, status)


def _time(text: object) -> int | None:
    """Read an ISO-8601 time; without a zone it is UTC. None: it is not one."""
    with suppress(ValueError):
        read = datetime.fromisoformat(str(text))
        return to_ms(read if read.tzinfo else read.replace(tzinfo=UTC))
    return None


def _encode(rows: Columns, unit: str | None = None) -> bytes:
    """Print rows newest first.

    Seconds, low, high, open, close, volume, whole numbers as such.
    """
    # Seconds are right here, so milliseconds take their place among the wrong units.
    time = rows.time / 1000 if unit is None else in_unit(rows.time, "ms" if unit == "s" else unit)
    columns = (time, rows.low, rows.high, rows.open, rows.close, rows.volume)
    matrix = np.stack(columns, axis=1)[::-1]
    text = orjson.dumps(np.ascontiguousarray(matrix), option=orjson.OPT_SERIALIZE_NUMPY)
    return text.replace(b".0,", b",").replace(b".0]", b"]")


def _encode_time(now_ms: int) -> bytes:
    return orjson.dumps({"iso": iso(now_ms, "milliseconds"), "epoch": now_ms / 1000})
