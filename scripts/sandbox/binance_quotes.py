"""Books, tickers, funding and trades of the sandbox's Binance.

Shapes, limits and weights: developers.binance.com, usds-margined-futures/market-data/rest-api.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Final, TypeAlias

from mdp_core.domain.intervals import Interval
from scripts.sandbox.binance_params import (
    Params,
    Refused,
    bounds_of,
    integer,
    limit_of,
    symbol_of,
)
from scripts.sandbox.candles import DISTANT_FUTURE_MS, MINUTE_MS, Columns, TimeSpan
from scripts.sandbox.exchange import Reply, SeriesBook, reply
from scripts.sandbox.markets import SandboxMarket, fraction, hashes
from scripts.sandbox.quotes import Quote, quote_of

Row: TypeAlias = dict[str, object]

_EIGHT_HOURS_MS = 8 * 60 * MINUTE_MS
_TRADE_EVERY_MS = 5_000
_TRADES_A_MINUTE = MINUTE_MS // _TRADE_EVERY_MS
_DEPTHS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}  # and their weights
_USUAL_DEPTH = 500


class BinanceQuotes:
    """Answers of one Binance to requests about the moment, funding and trades."""

    def __init__(self, series: SeriesBook, markets: Mapping[str, SandboxMarket]) -> None:
        """Answer for these symbols."""
        self._series = series
        self._markets = markets

    def answer(self, path: str, params: Params, now_ms: int) -> Reply | None:
        """Answer a request; None: there is no such path here."""
        found = _ANSWERS.get(path)
        return reply(found(self, params, now_ms)) if found else None

    def depth(self, params: Params, now_ms: int) -> object:
        """Give the order book; only some depths can be asked for."""
        quote = self._quote(symbol_of(params, self._markets), now_ms)
        limit = integer(params, "limit")
        if limit is not None and limit not in _DEPTHS:
            raise Refused(-4021, f"'{limit}' is not valid depth limit.")
        depth = limit or _USUAL_DEPTH
        return {
            "lastUpdateId": now_ms,
            "E": now_ms,
            "T": now_ms,
            "bids": [level[:2] for level in quote.bids(depth)] if quote else [],
            "asks": [level[:2] for level in quote.asks(depth)] if quote else [],
        }

    def day(self, params: Params, now_ms: int) -> object:
        """Give the figures of the last 24 hours, of one symbol or of all that were traded."""
        return self._of_one_or_all(params, now_ms, _day)

    def price(self, params: Params, now_ms: int) -> object:
        """Give the last price, of one symbol or of all that were traded."""
        return self._of_one_or_all(
            params, now_ms, lambda quote, time: {"price": quote.text, "time": time}
        )

    def best(self, params: Params, now_ms: int) -> object:
        """Give the best bid and ask, of one symbol or of all that were traded."""
        return self._of_one_or_all(params, now_ms, _best)

    def premium(self, params: Params, now_ms: int) -> object:
        """Give mark price and funding, of one symbol or of all that were traded."""
        return self._of_one_or_all(params, now_ms, _premium)

    def funding(self, params: Params, now_ms: int) -> object:
        """Give funding rates, ascending: the first from `startTime` on, else the newest."""
        start, end = bounds_of(params)
        limit = limit_of(params, 100, 1000)
        window = TimeSpan(start or 0, DISTANT_FUTURE_MS if end is None else end + 1)
        if "symbol" not in params:
            newest = [self._fundings(name, window, -1, now_ms) for name in self._markets]
            return list(chain(*newest))[-limit:]
        symbol = symbol_of(params, self._markets)
        return self._fundings(symbol, window, -limit if start is None else limit, now_ms)

    def _fundings(self, symbol: str, window: TimeSpan, count: int, now_ms: int) -> list[Row]:
        """Give the first `count` rates of the window.

        Or the last ones where it is negative.
        """
        series = self._series(symbol, Interval.EIGHT_HOURS)
        find = series.first if count > 0 else series.last
        return list(_fundings(symbol, find(window, abs(count), now_ms)))

    def trades(self, params: Params, now_ms: int) -> object:
        """Give aggregated trades, ascending.

        One every five seconds of a minute with volume.
        """
        symbol = symbol_of(params, self._markets)
        limit = limit_of(params, 500, 1000)
        start, end = bounds_of(params)
        first = integer(params, "fromId")
        start = start if first is None else first * _TRADE_EVERY_MS
        series = self._series(symbol, Interval.ONE_MINUTE)
        end = now_ms if end is None else min(end, now_ms)
        window = TimeSpan((start or 0) // MINUTE_MS * MINUTE_MS, end + 1)
        find = series.last if start is None else series.first
        rows = find(window, limit // _TRADES_A_MINUTE + 2, now_ms)
        trades = _trades(rows, 10**series.decimals.size)
        found = [trade for at, trade in trades if (start or 0) <= at <= end]
        return found[-limit:] if start is None else found[:limit]

    def _of_one_or_all(
        self, params: Params, now_ms: int, describe: Callable[[Quote, int], Row]
    ) -> object:
        if "symbol" in params:
            symbol = symbol_of(params, self._markets)
            quote = self._quote(symbol, now_ms)
            if quote is None:
                raise Refused(-1121, "Invalid symbol.")
            return {"symbol": symbol, **describe(quote, now_ms)}
        quotes = ((symbol, self._quote(symbol, now_ms)) for symbol in self._markets)
        return [{"symbol": name, **describe(quote, now_ms)} for name, quote in quotes if quote]

    def _quote(self, symbol: str, now_ms: int) -> Quote | None:
        return quote_of(self._series, symbol, now_ms)


_ANSWERS: Final[Mapping[str, Callable[[BinanceQuotes, Params, int], object]]] = {
    "/fapi/v1/depth": BinanceQuotes.depth,
    "/fapi/v1/ticker/24hr": BinanceQuotes.day,
    "/fapi/v1/ticker/price": BinanceQuotes.price,
    "/fapi/v2/ticker/price": BinanceQuotes.price,
    "/fapi/v1/ticker/bookTicker": BinanceQuotes.best,
    "/fapi/v1/premiumIndex": BinanceQuotes.premium,
    "/fapi/v1/fundingRate": BinanceQuotes.funding,
    "/fapi/v1/aggTrades": BinanceQuotes.trades,
}
# Weight with a symbol, and without.
_WEIGHTS: Final[Mapping[str, tuple[int, int]]] = {
    "/fapi/v1/ticker/24hr": (1, 40),
    "/fapi/v1/ticker/price": (1, 2),
    "/fapi/v2/ticker/price": (1, 2),
    "/fapi/v1/ticker/bookTicker": (2, 5),
    "/fapi/v1/premiumIndex": (1, 10),
    "/fapi/v1/aggTrades": (20, 20),
}


def weight_of(path: str, params: Params) -> int:
    """Give the weight of a request that asks for no candles."""
    if path == "/fapi/v1/depth":
        limit = params.get("limit", "")
        return _DEPTHS.get(int(limit) if limit.isdecimal() else _USUAL_DEPTH, 10)
    with_symbol, without = _WEIGHTS.get(path, (1, 1))
    return with_symbol if params.get("symbol") else without


def _day(quote: Quote, now_ms: int) -> Row:
    day, size = quote.day, quote.decimals.size
    opened, volume, value = float(day.open[0]), float(day.volume.sum()), float(day.quote.sum())
    change = quote.price - opened
    return {
        "priceChange": f"{change:.{quote.decimals.price}f}",
        "priceChangePercent": f"{change / opened * 100:.3f}",
        "weightedAvgPrice": f"{value / volume if volume else quote.price:.{quote.decimals.price}f}",
        "lastPrice": quote.text,
        "lastQty": quote.bids(1)[0].size,
        "openPrice": f"{opened:.{quote.decimals.price}f}",
        "highPrice": f"{day.high.max():.{quote.decimals.price}f}",
        "lowPrice": f"{day.low.min():.{quote.decimals.price}f}",
        "volume": f"{volume:.{size}f}",
        "quoteVolume": f"{value:.2f}",
        "openTime": int(day.time[0]),
        "closeTime": now_ms,
        "firstId": int(day.time[0]) // _TRADE_EVERY_MS,
        "lastId": now_ms // _TRADE_EVERY_MS,
        "count": int(day.trades.sum()),
    }


def _best(quote: Quote, now_ms: int) -> Row:
    bid, ask = quote.bids(1)[0], quote.asks(1)[0]
    prices = {"bidPrice": bid.price, "bidQty": bid.size, "askPrice": ask.price, "askQty": ask.size}
    return {**prices, "time": now_ms, "lastUpdateId": now_ms}


def _premium(quote: Quote, now_ms: int) -> Row:
    return {
        "markPrice": f"{quote.price:.8f}",
        "indexPrice": f"{quote.price:.8f}",
        "estimatedSettlePrice": f"{quote.price:.8f}",
        "lastFundingRate": "0.00010000",
        "interestRate": "0.00010000",
        "nextFundingTime": (now_ms // _EIGHT_HOURS_MS + 1) * _EIGHT_HOURS_MS,
        "time": now_ms,
    }


def _fundings(symbol: str, rows: Columns) -> Iterator[Row]:
    """Print a rate for each slot of eight hours, due when it opens."""
    rates = (fraction(hashes(0, rows.time)) - 0.3) * 0.0004
    for time, price, rate in zip(rows.time, rows.open, rates, strict=True):
        yield {
            "symbol": symbol,
            "fundingTime": int(time),
            "fundingRate": f"{rate:.8f}",
            "markPrice": f"{price:.8f}",
        }


def _trades(rows: Columns, lot: int) -> Iterator[tuple[int, Row]]:
    """Let each minute's price walk from its open to its close.

    With equal parts of the volume.
    """
    columns = (column.tolist() for column in (rows.time, rows.open, rows.close, rows.volume))
    for time, opened, close, volume in zip(*columns, strict=True):
        size = str(max(1, round(volume * lot / _TRADES_A_MINUTE)) / lot)
        for step in range(_TRADES_A_MINUTE if volume else 0):
            at = time + step * _TRADE_EVERY_MS
            price = opened + (close - opened) * step / (_TRADES_A_MINUTE - 1)
            yield at, _trade(at, str(round(price, 8)), size)


def _trade(at: int, price: str, size: str) -> Row:
    number = at // _TRADE_EVERY_MS
    ids = {"a": number, "f": number, "l": number}
    return {**ids, "p": price, "q": size, "T": at, "m": number % 2 == 0}
