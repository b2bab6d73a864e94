"""Binance USD-M perpetual futures.

Sources, read 2026-10: https://developers.binance.com, usds-margined-futures: general-info,
market-data/rest-api/Kline-Candlestick-Data and Exchange-Information; recorded answers in public
repositories where they say more than the documentation.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from typing_extensions import override

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.series import Symbol
from mdp_core.domain.windows import Window
from mdp_core.errors import BadPayload
from mdp_core.exchanges.base import ExchangeAdapter, ExchangeFacts, OfferedInterval
from mdp_core.exchanges.parsing import (
    SymbolList,
    columns,
    counts,
    decimal,
    decimals,
    integer,
    read_symbols,
    text,
    times,
)
from mdp_core.ratelimit.tariff import Tariff

_NAME = "binance"
_KLINES = "/fapi/v1/klines"

# Of a row: its time, open to volume, quote volume, trades, both taker buy volumes.
_COLUMNS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 10)

# Weight by `limit`: [1,100) 1, [100,500) 2, [500,1000] 5, above 10. 499 rows cost least.
_PAGE_SIZE = 499
_NEWEST = 2
_WEIGHTS = ((99, 1), (499, 2), (1000, 5), (1500, 10))

_SHIFTED_GRIDS = {
    # Weeks open on Monday: the documentation's example opens on 2024-06-10. 1970-01-05 was one.
    Interval.ONE_WEEK: timedelta(days=4),
    # 2024-01-01 is an open on fapi; an old spot series lies one day earlier. See `phase_varies`.
    Interval.THREE_DAYS: timedelta(days=1),
}
_INTERVALS = {
    interval: OfferedInterval(
        native=interval.value,
        grid=epoch_grid(interval, _SHIFTED_GRIDS.get(interval, timedelta(0))),
        phase_varies=interval is Interval.THREE_DAYS,
    )
    for interval in Interval
}

# A live perpetual's delivery date is 2100-12-25; a delisted one's is the day it ended.
_NEVER = datetime(2100, 1, 1, tzinfo=UTC)
# 1000SHIB and 1000000MOG count in thousands and millions of tokens; 1INCH is a name.
_MULTIPLIER = re.compile(r"(10{3,})[A-Z]")


def _weight(limit: int) -> int:
    return next(weight for most, weight in _WEIGHTS if limit <= most)


class BinanceFuturesAdapter(ExchangeAdapter):
    """Speaks `fapi`; must not be pointed at COIN-M, whose volumes are contracts."""

    facts = ExchangeFacts(
        name=_NAME,
        title="Binance USD-M futures",
        market_type="perp",
        base_url="https://fapi.binance.com",
        intervals=_INTERVALS,
        # 2400 weight per clock minute and IP: exchangeInfo, `rateLimits`.
        tariff=Tariff(
            capacity=240, per_second=36, used_header="X-MBX-USED-WEIGHT-1M", weigh=_weight
        ),
        page_size=_PAGE_SIZE,
        fills_empty_intervals=True,
        settle_seconds=2,
        absence_grace_seconds=60,
        poll_seconds=2,
        supports_first_candle=True,
        reference_symbol=Symbol(_NAME, "perp", "BTC-USDT", "BTCUSDT", "BTC", "USDT", active=True),
    )

    @override
    async def fetch_page(self, symbol: Symbol, interval: Interval, window: Window) -> Candles:
        """Fetch one page; both wire bounds are inclusive and count open times (recorded)."""
        slots = _INTERVALS[interval].grid.count(window.start, window.end)
        params = {
            "symbol": symbol.native,
            "interval": interval.value,
            "startTime": to_ms(window.start),
            "endTime": to_ms(window.end) - 1,
            "limit": slots,
        }
        return await self._http.get_json(_KLINES, params, parse_candles, weight=_weight(slots))

    @override
    async def fetch_first(
        self, symbol: Symbol, interval: Interval, since: datetime | None
    ) -> Candles:
        """Fetch the first candle: `onboardDate` was seen to lie after it (recorded)."""
        return await self._fetch_from_zero(symbol, interval, 1)

    @override
    async def fetch_first_again(
        self, symbol: Symbol, interval: Interval, since: datetime | None
    ) -> Candles:
        """Fetch the first two candles."""
        return await self._fetch_from_zero(symbol, interval, 2)

    async def _fetch_from_zero(self, symbol: Symbol, interval: Interval, rows: int) -> Candles:
        series = {"symbol": symbol.native, "interval": interval.value}
        params = {**series, "startTime": 0, "limit": rows}
        return await self._http.get_json(_KLINES, params, parse_candles, weight=_weight(rows))

    @override
    async def fetch_newest(self, symbol: Symbol, interval: Interval) -> Candles:
        """Fetch the newest candles, the forming one among them."""
        params = {"symbol": symbol.native, "interval": interval.value, "limit": _NEWEST}
        return await self._http.get_json(_KLINES, params, parse_candles, weight=_weight(_NEWEST))

    @override
    async def fetch_symbols(self) -> Sequence[Symbol]:
        """Fetch the perpetuals; dated futures and perpetuals on other assets are left out."""
        return await self._http.get_json("/fapi/v1/exchangeInfo", {}, parse_symbols, weight=1)

    @override
    async def server_time(self) -> datetime:
        """Fetch the clock; `exchangeInfo.serverTime` was seen 37 hours old (recorded)."""
        return await self._http.get_json("/fapi/v1/time", {}, parse_time, weight=1)


def parse_candles(payload: object) -> Candles:
    """Read the rows of `klines`.

    `[open time ms, open, high, low, close, base volume, close time ms, quote volume, trades,
    taker buy base volume, taker buy quote volume, …]`, the prices and volumes as strings.

    Raises:
        BadPayload: Not a list of rows with times.
    """
    try:
        time, *numbers, trades, taker, taker_quote = columns(payload, list, _COLUMNS)
        return Candles(
            times(time),
            *map(decimals, numbers),
            trades=counts(trades),
            taker_buy_volume=decimals(taker),
            taker_buy_quote_volume=decimals(taker_quote),
        )
    except TypeError as error:
        raise BadPayload(_NAME, "answered klines of an unknown shape") from error


def parse_symbols(payload: object) -> SymbolList:
    """Read `exchangeInfo`: the contracts of type PERPETUAL.

    Keys, contract types and states come and go: what is unknown is left out or is inactive.

    Raises:
        BadPayload: There is no list of symbols, or one of which nothing can be read.
    """
    try:
        listed = cast("dict[str, object]", payload)["symbols"]
        return read_symbols(_NAME, listed, _symbol, "symbol")
    except (KeyError, TypeError) as error:
        raise BadPayload(_NAME, "answered an exchangeInfo of an unknown shape") from error


def _symbol(entry: Mapping[str, Any]) -> Symbol | None:
    if entry.get("contractType") != "PERPETUAL":
        return None
    base, quote = text(entry["baseAsset"]), text(entry["quoteAsset"])
    filters = {f.get("filterType"): f for f in entry.get("filters") or ()}
    multiplier = _MULTIPLIER.match(base)
    delivery = _when(entry, "deliveryDate")
    return Symbol(
        exchange=_NAME,
        market_type="perp",
        name=f"{base}-{quote}",
        native=text(entry["symbol"]),
        base=base,
        quote=quote,
        active=entry.get("status") == "TRADING",
        multiplier=int(multiplier[1]) if multiplier else 1,
        tick_size=_size(filters, "PRICE_FILTER", "tickSize"),
        step_size=_size(filters, "LOT_SIZE", "stepSize"),
        listed_at=_when(entry, "onboardDate"),
        delisted_at=delivery if delivery and delivery < _NEVER else None,
    )


def _when(entry: Mapping[str, Any], key: str) -> datetime | None:
    ms = entry.get(key)
    return from_ms(integer(ms)) if ms else None


def _size(filters: Mapping[Any, Mapping[str, Any]], kind: str, key: str) -> float | None:
    size = filters.get(kind, {}).get(key)
    return decimal(size) if size else None


def parse_time(payload: object) -> datetime:
    """Read the exchange's time.

    Raises:
        BadPayload: There is none.
    """
    try:
        return from_ms(integer(cast("dict[str, object]", payload)["serverTime"]))
    except (KeyError, TypeError, OverflowError) as error:
        raise BadPayload(_NAME, "answered a time of an unknown shape") from error
