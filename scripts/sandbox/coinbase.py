"""Coinbase Exchange (spot) as its public REST host answers, under `/coinbase`.

Peculiar products, for those who test against them:

- `BTC-USD`: one-minute candles since 2015-01-20, hourly and daily ones since 2015-07-20
- `AERO-USD`: in one of five minutes nobody trades; `WAXL-USD`: in 199 of 200. There is no row then
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

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import Grid, Interval, epoch_grid
from scripts.sandbox.candles import Columns, Decimals, Market, Window
from scripts.sandbox.exchange import (
    Answer,
    Call,
    Exchange,
    Listing,
    Page,
    Reading,
    Reply,
    SeriesBook,
    decimals_of,
    in_unit,
    markets_of,
    ms_of,
    reply,
    step_of,
    tail_of,
)
from scripts.sandbox.limits import Refusal, Seconds, TokenBucket
from scripts.sandbox.replay import Replay

_MOST_INTERVALS = 300
_DEFAULT_ROWS = 350
_LATE_MS = 45_000
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
_PRODUCT = re.compile(r"/products/([^/]+)")
_PRODUCTS = """
BTC-USD 60000 2015-07-20T21:00Z · ETH-USD 2500 2016-05-18T00:00Z · SOL-USD 140 2021-06-17T16:00Z
DOGE-USD 0.15 2021-06-03T16:00Z · LTC-USD 90 2016-08-17T00:00Z · XRP-USD 0.6 2023-07-13T18:00Z
ADA-USD 0.5 2021-03-18T16:00Z · LINK-USD 14 2019-06-27T16:00Z · AVAX-USD 30 2021-09-30T16:00Z
1INCH-GBP 0.3 2021-06-01T16:00Z · ETH-EUR 2300 2017-05-23T00:00Z · BTC-EUR 55000 2015-04-23T00:00Z
BTC-GBP 48000 2015-04-21T00:00Z · ETH-BTC 0.05 2016-05-18T00:00Z · USDT-USD 1 2021-05-04T01:00Z
AERO-USD 0.9 2024-02-13T17:00Z · DASH-USD 30 2019-09-17T17:00Z · WAXL-USD 0.6 2022-09-28T17:00Z
BADGER-USD 3 2021-11-01T17:00Z · HYPE-USD 25 2026-02-05T19:00Z · NOVEL-USD 3 2024-03-01T17:00Z
BTCAUCTION-USD 60000 2024-03-01T17:00Z · MOVE-USD 0.5 2024-12-09T13:00Z 2025-05-15T18:00Z
BAL-BTC 0.0004 2020-10-06T16:00Z 2022-12-01T17:00Z
BTC-USDC 60000 2018-08-01T17:00Z 2019-03-01T00:00Z
"""
_TAIL = """
AAVE ALGO ANKR APE API3 APT ARB ATOM AUDIO AXS BAL BAND BAT BCH BLUR BNT BONK CHZ COMP COTI CRO CRV
CTSI CVX DAI DOT EIGEN ENA ENJ ENS EOS ETC ETHFI FET FIL FLOKI FLOW FLR FORTH GFI GLM GODS GRT HBAR
ICP IMX INJ JASMY JTO KAVA KNC KSM LCX LDO LPT LQTY LRC MANA MASK METIS MINA MLN NEAR NKN NMR OCEAN
OGN ONDO OP ORCA OXT PENDLE PEPE PERP POL POND POPCAT PYTH QNT RAD RARE RENDER REQ RLC ROSE RPL SAND
SEI SHIB SKL SNX SPELL STORJ STRK STX SUI SUPER SUSHI TIA TNSR TRB TRU UMA UNI VET WIF WLD XLM XTZ
YFI ZEC ZEN ZETA ZK ZRO ZRX
"""
_BTC_MINUTES_MS = ms_of("2015-01-20T18:13Z")
_WORDS: Mapping[str, Mapping[str, object]] = {
    "BADGER-USD": {"limit_only": True},
    "NOVEL-USD": {"status": "hibernating"},
    "BTCAUCTION-USD": {"base_currency": "BTC", "cancel_only": True, "auction_mode": True},
}


class Coinbase(Exchange):
    """`/products`, one product, its candles, `/currencies` and `/time`."""

    name: ClassVar[str] = "coinbase"
    candle_params: ClassVar[frozenset[str]] = frozenset({"granularity", "start", "end"})
    fields: ClassVar[Mapping[str, int | str]] = {name: at for at, name in enumerate(_FIELDS)}

    def __init__(self, replay: Replay, seconds: Seconds = time.monotonic) -> None:
        """Make the exchange; `seconds` is the real time of the token bucket."""
        self._markets = replay.markets(self.name, _invented())
        self._series = SeriesBook(self.name, GRIDS, self._market, replay)
        self._is_btc_invented = "BTC-USD" not in replay.symbols(self.name)
        # docs.cdp.coinbase.com, exchange/rest-api/rate-limits
        self._bucket = TokenBucket(capacity=15, per_second=10, seconds=seconds)

    def answer(self, call: Call, now_ms: int) -> Answer:
        """Answer a call; a client has to name itself."""
        if not call.headers.get("user-agent"):
            return _refusal(400, "User-Agent header is required.")
        return self._route(call, now_ms)

    def _route(self, call: Call, now_ms: int) -> Answer:
        if candles := _CANDLES.fullmatch(call.path):
            return self._candles(candles[1], call.params, now_ms)
        if product := _PRODUCT.fullmatch(call.path):
            return self._product(product[1], now_ms)
        match call.path:
            case "/products":
                products = [_describe(name, m, now_ms) for name, m in self._markets.items()]
                return Listing(products, "id", ("quote_increment", "N/A"), orjson.dumps)
            case "/currencies":
                return reply(self._currencies())
            case "/time":
                return Reading(now_ms, _encode_time)
            case _:
                return _refusal(404, "NotFound")

    def charge(self, call: Call, answer: Answer) -> Refusal | None:
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
        market = self._markets.get(name)
        return reply(_describe(name, market, now_ms)) if market else _refusal(404, "NotFound")

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
            rows = series.last(Window(0, now_ms + 1), _DEFAULT_ROWS, now_ms)
            return Page(name, interval, series, rows, self.fields, _encode)
        start, end = _time(params["start"]), _time(params["end"])
        if start is None or end is None or start > end:
            return _refusal(400, "Invalid start or end")
        if end - start > _MOST_INTERVALS * int(granularity) * 1000:
            return _refusal(
                400,
                "granularity too small for the requested time range. "
                f"Count of aggregations requested exceeds {_MOST_INTERVALS}",
            )
        rows = series.first(Window(start, end + 1), _MOST_INTERVALS + 1, now_ms)
        return Page(name, interval, series, rows, self.fields, _encode)

    def _market(self, name: str, interval: Interval) -> Market:
        market = self._markets[name]
        if name == "BTC-USD" and interval == Interval.ONE_MINUTE and self._is_btc_invented:
            return replace(market, born_ms=_BTC_MINUTES_MS)
        return market

    def _currencies(self) -> list[dict[str, object]]:
        codes = {code for name in self._markets for code in name.split("-", 1)}
        return [_currency(code) for code in sorted(codes)]


def _refusal(status: int, message: str) -> Reply:
    return reply({"message": message}, status)


def _time(text: object) -> int | None:
    """Read an ISO-8601 time; without a zone it is UTC. None: it is not one."""
    with suppress(ValueError):
        read = datetime.fromisoformat(str(text))
        return to_ms(read if read.tzinfo else read.replace(tzinfo=UTC))
    return None


def _encode(rows: Columns, unit: str | None = None) -> bytes:
    """Print rows newest first: seconds, low, high, open, close, volume, whole numbers as such."""
    # Seconds are right here, so milliseconds take their place among the wrong units.
    time = rows.time / 1000 if unit is None else in_unit(rows.time, "ms" if unit == "s" else unit)
    columns = (time, rows.low, rows.high, rows.open, rows.close, rows.volume)
    matrix = np.stack(columns, axis=1)[::-1]
    text = orjson.dumps(np.ascontiguousarray(matrix), option=orjson.OPT_SERIALIZE_NUMPY)
    return text.replace(b".0,", b",").replace(b".0]", b"]")


def _encode_time(now_ms: int) -> bytes:
    iso = from_ms(now_ms).isoformat(timespec="milliseconds")
    return orjson.dumps({"iso": iso.replace("+00:00", "Z"), "epoch": now_ms / 1000})


def _invented() -> dict[str, Market]:
    tail = tail_of(" ".join(f"{base}-USD" for base in _TAIL.split()), "2021-01-04")
    invented = markets_of("coinbase", _PRODUCTS + tail, _decimals)
    quiet = {"BTC-USD": 0.001, "AERO-USD": 0.2, "WAXL-USD": 0.995}
    late = {"DASH-USD": _LATE_MS}
    return {
        name: replace(
            market,
            quiet=quiet.get(name, 0.02),
            publishes_quiet=False,
            late_ms=late.get(name, 0),
        )
        for name, market in invented.items()
    }


def _decimals(price: float) -> Decimals:
    return Decimals(min(decimals_of(price, digits=7).price, 8), 8)


def _describe(name: str, market: Market, now_ms: int) -> dict[str, object]:
    base, quote = name.split("-", 1)
    is_delisted = market.dies_ms <= now_ms
    described: dict[str, object] = {
        "id": name,
        "base_currency": base,
        "quote_currency": quote,
        "quote_increment": step_of(market.decimals.price),
        "base_increment": step_of(market.decimals.size),
        "display_name": name,
        "min_market_funds": "1",
        "margin_enabled": False,
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
        "status": "delisted" if is_delisted else "online",
        "status_message": "",
        "trading_disabled": is_delisted,
        "fx_stablecoin": False,
        "max_slippage_percentage": "0.03000000",
        "auction_mode": False,
        "high_bid_limit_percentage": "",
    }
    return {**described, **_WORDS.get(name, {})}


def _currency(code: str) -> dict[str, object]:
    return {
        "id": code,
        "name": code,
        "min_size": "0.00000001",
        "status": "online",
        "message": "",
        "max_precision": "0.00000001",
        "convertible_to": [],
        "details": {"type": "fiat" if code in {"USD", "EUR", "GBP"} else "crypto"},
        "default_network": "",
        "supported_networks": [],
        "display_name": code,
    }
