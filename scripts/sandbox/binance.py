"""Binance USD-M futures as its REST host answers, under `/binance`.

Peculiar symbols, for those who test against them:

- `BTCUSDT`: `onboardDate` lies 17 days after its first candle
- `XRPUSDT`: down 2024-06-12 02:00 to 04:00 UTC, no candle opens there
- `DEFIUSDT`: in three of ten minutes there are no trades; those rows are flat, with volume 0
- `OMGUSDT`: delisted (`SETTLING`), its candles end at its `deliveryDate`; more among the others
- `XAUUSDT` (`TRADIFI_PERPETUAL`), `BTCUSDT_261225` (`CURRENT_QUARTER`), `BTCSTUSDT`
  (`PENDING_TRADING`, contract type empty, no candles), `NOVELUSDT` (unknown status),
  `ODDUSDT` (unknown contract type)
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import ClassVar, Final, cast

import numpy as np
import orjson

from mdp_core.domain.intervals import Grid, Interval, epoch_grid
from scripts.sandbox.archive import Archive
from scripts.sandbox.binance_listing import exchange_info, listing, with_known_status
from scripts.sandbox.binance_params import (
    Params,
    Refused,
    bounds_of,
    limit_of,
    mandatory,
    symbol_of,
)
from scripts.sandbox.binance_quotes import BinanceQuotes, weight_of
from scripts.sandbox.candles import DISTANT_FUTURE_MS, Columns, PublishedSeries, TimeSpan, closes_ms
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
    quoted_rows,
    reply,
)
from scripts.sandbox.limits import BANNED, ClockMinuteBudget, Refusal, Seconds
from scripts.sandbox.markets import taker_share
from scripts.sandbox.replay import Replay

_WEIGHT_PER_MINUTE = 2400
_INTERVALS = frozenset(Interval)
_CANDLES = frozenset({"/fapi/v1/klines", "/fapi/v1/markPriceKlines"})
_DEFAULT_LIMIT = 500
_MAX_LIMIT = 1500
_FIELDS = (
    *("time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades"),
    *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
_CANDLE_PARAMS = frozenset({"symbol", "interval", "startTime", "endTime", "limit"})
# Weeks open on Mondays (developers.binance.com, Kline-Candlestick-Data: 1499040000000); today's
# three-day futures candles lie one day after the epoch's multiples (BTCUSDT: 2024-01-01 opens one).
_PHASES = {Interval.THREE_DAYS: timedelta(days=1), Interval.ONE_WEEK: timedelta(days=4)}
GRIDS: Final[Mapping[Interval, Grid]] = {
    interval: epoch_grid(interval, _PHASES.get(interval, timedelta(0))) for interval in Interval
}


class Binance(SandboxExchange):
    """Candles, metadata and time, and what is public beside them under `/fapi/v1`."""

    name: ClassVar[str] = "binance"
    candle_params: ClassVar[frozenset[str]] = _CANDLE_PARAMS
    fields: ClassVar[Mapping[str, int | str]] = {name: at for at, name in enumerate(_FIELDS)}

    def __init__(self, replay: Replay, now_ms: int, seconds: Seconds = time.time) -> None:
        """List the symbols as they stand at `now_ms`.

        `seconds` is the real time of the budget.
        """
        listed = listing(replay)
        self._markets = {symbol.name: symbol.market for symbol in listed}
        self._series = SeriesBook(self.name, GRIDS, lambda name, _: self._markets[name], replay)
        self._info = exchange_info(listed, now_ms)
        self._quotes = BinanceQuotes(self._series, self._markets)
        self.archive = Archive(self._series, list(self._markets))
        self._budget = ClockMinuteBudget(_WEIGHT_PER_MINUTE, seconds, bans=True)

    def answer(self, call: SandboxCall, now_ms: int) -> Answer:
        """Answer a call; unknown paths as the futures host does."""
        params = {key: str(value) for key, value in call.params.items()}
        try:
            found = self._get(call.path, params, now_ms) if call.method == "GET" else None
        except Refused as refused:
            return refused.reply
        text = f"Path {call.path}, Method {call.method} is invalid"
        return found or reply({"code": -5000, "msg": text}, 404)

    def _get(self, path: str, params: Params, now_ms: int) -> Answer | None:
        match path:
            case "/fapi/v1/klines":
                return self._page(params, now_ms)
            case "/fapi/v1/markPriceKlines":
                return self._marks(params, now_ms)
            case "/fapi/v1/exchangeInfo":
                return self._listing()
            case "/fapi/v1/time":
                return TimeReply(now_ms, lambda told: orjson.dumps({"serverTime": told}))
            case "/fapi/v1/ping":
                return reply({})
            case _:
                return self._quotes.answer(path, params, now_ms)

    def charge(self, call: SandboxCall, answer: Answer) -> Refusal | None:
        """Book the weight; requests that are answered with 400 cost theirs too (measured)."""
        del answer
        params = {key: str(value) for key, value in call.params.items()}
        weight = _weight(params) if call.path in _CANDLES else weight_of(call.path, params)
        return self._budget.charge(call.host, weight)

    def headers(self, host: str) -> Mapping[str, str]:
        """Tell the weight used in this minute."""
        return {"X-MBX-USED-WEIGHT-1M": str(self._budget.used(host))}

    def refuse(self, refusal: Refusal, now_ms: int) -> Reply:
        """Word a refusal: -1003, with Retry-After. Source: the error-code page."""
        text = (
            f"Way too many requests; IP banned until {now_ms + refusal.retry_after * 1000}. "
            if refusal.status == BANNED
            else f"Too many requests; current limit is {_WEIGHT_PER_MINUTE} requests per minute. "
        ) + "Please use the websocket for live updates to avoid polling the API."
        body = orjson.dumps({"code": -1003, "msg": text})
        return Reply(refusal.status, body, headers={"Retry-After": str(refusal.retry_after)})

    def fail(self) -> Reply:
        """Word an internal error: -1001. Source: the error-code page."""
        text = "Internal error; unable to process your request. Please try again."
        return reply({"code": -1001, "msg": text}, 500)

    def _page(self, params: Params, now_ms: int) -> CandleReply:
        """Find the rows. Both bounds are inclusive and hold for the open time.

        Without `startTime` the most recent rows up to `endTime` come back, with it the first
        ones after it, `limit` at most. Source: developers.binance.com, Kline-Candlestick-Data.
        """
        symbol, interval = self._series_of(params)
        start, end = bounds_of(params)
        limit = limit_of(params, _DEFAULT_LIMIT, _MAX_LIMIT)
        series = self._series(symbol, interval)
        window = TimeSpan(start or 0, DISTANT_FUTURE_MS if end is None else end + 1)
        find = series.last if start is None else series.first
        rows = find(window, limit, now_ms)
        encode = partial(_encode, series)
        return CandleReply(symbol, interval, series, rows, self.fields, encode)

    def _marks(self, params: Params, now_ms: int) -> Reply:
        """Give mark prices as candles: the same prices, and nothing traded."""
        page = self._page(params, now_ms)
        none = np.zeros(len(page.columns))
        rows = replace(page.columns, volume=none, quote=none)
        return Reply(200, page.encode(rows))

    def _listing(self) -> SymbolsReply:
        symbols = cast("list[Mapping[str, object]]", self._info["symbols"])
        if not self.shows_unknown_status:
            symbols = [with_known_status(symbol) for symbol in symbols]
        return SymbolsReply(
            symbols,
            "symbol",
            ("baseAsset", None),
            lambda entries: orjson.dumps({**self._info, "symbols": entries}),
        )

    def _series_of(self, params: Params) -> tuple[str, Interval]:
        unread = params.keys() - _CANDLE_PARAMS
        if unread:
            read = len(params) - len(unread)
            text = f"read '{read}' parameter(s) but was sent '{len(params)}'."
            raise Refused(-1104, f"Not all sent parameters were read; {text}")
        symbol = mandatory(params, "symbol").upper()
        interval = mandatory(params, "interval")
        if interval not in _INTERVALS:
            raise Refused(-1120, "Invalid interval.")
        return symbol_of({"symbol": symbol}, self._markets), Interval(interval)


def _weight(params: Params) -> int:
    """Give the weight of a candle request by its limit, as measured.

    5 when there is none.
    """
    text = params.get("limit", "")
    limit = int(text) if text.isdecimal() else _DEFAULT_LIMIT + 1
    return next((weight for most, weight in ((100, 1), (500, 2), (1000, 5)) if limit <= most), 10)


def _encode(series: PublishedSeries, rows: Columns, unit: str | None = None) -> bytes:
    """Print rows of twelve.

    Prices and volumes as strings, closing a millisecond early.
    """
    if len(rows) == 0:
        return b"[]"
    unit = unit or "ms"
    opens = numbers(in_unit(rows.time, unit), b"[")
    closes = numbers(in_unit(closes_ms(series.grid, rows.time) - 1, unit))
    prices = quoted_rows(rows.open, rows.high, rows.low, rows.close)
    volume, quote = (numbers(column, b'"', b'"') for column in (rows.volume, rows.quote))
    takers = quoted_rows(*taker_share(rows, series.decimals))
    end = [b'"0"]'] * len(rows)
    trades = numbers(rows.trades)
    return array_of((opens, prices, volume, closes, quote, trades, takers, end))
