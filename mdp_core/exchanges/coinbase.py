"""Coinbase Exchange, spot.

Sources, read 2026-10: https://docs.cdp.coinbase.com/exchange: get-product-candles, get-products,
rate-limits; recorded answers and published measurements in public repositories where they say more.
The Advanced Trade interface is not used: its limits are not published, and it lists aliases.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
from typing_extensions import override

from mdp_core.domain.candles import Candles
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.series import Symbol
from mdp_core.domain.windows import Window
from mdp_core.errors import BadPayload
from mdp_core.exchanges.base import ExchangeAdapter, ExchangeFacts, OfferedInterval
from mdp_core.exchanges.parsing import (
    SymbolList,
    columns,
    decimal,
    decimals,
    read_symbols,
    text,
    times,
)
from mdp_core.ratelimit.tariff import Tariff

_NAME = "coinbase"

# 300 intervals are answered with up to 301 rows, 301 are refused (measured 2026-09).
_PAGE_SIZE = 300
_WEIGHT = 1
_NAMES = re.compile(r"[^-\s]+-[^-\s]+")  # BASE-QUOTE; whatever else may come is left out

# Of a row: its time, open, high, low, close, volume.
_COLUMNS = (0, 3, 2, 1, 4, 5)

# All others answer 400 `Unsupported granularity`.
_SECONDS = {
    Interval.ONE_MINUTE: 60,
    Interval.FIVE_MINUTES: 300,
    Interval.FIFTEEN_MINUTES: 900,
    Interval.ONE_HOUR: 3600,
    Interval.SIX_HOURS: 21600,
    Interval.ONE_DAY: 86400,
}


class CoinbaseSpotAdapter(ExchangeAdapter):
    """Speaks the Exchange interface. A client must send a User-Agent: ours does."""

    facts = ExchangeFacts(
        name=_NAME,
        title="Coinbase Exchange spot",
        market_type="spot",
        base_url="https://api.exchange.coinbase.com",
        intervals={
            interval: OfferedInterval(native=str(seconds), grid=epoch_grid(interval))
            for interval, seconds in _SECONDS.items()
        },
        # 10 requests a second and IP, bursts of 15; there are no headers that tell.
        tariff=Tariff(capacity=10, per_second=9),
        page_size=_PAGE_SIZE,
        fills_empty_intervals=False,  # "no data is published for intervals without ticks"
        settle_seconds=60,  # a closed bucket was seen to be late or to change for about a minute
        absence_grace_seconds=300,
        poll_seconds=2,
        supports_first_candle=False,  # finding it takes a search: interval and depth go together
        overshoot_slots=1,  # "some rows may precede start"
        reference_symbol=Symbol(_NAME, "spot", "BTC-USD", "BTC-USD", "BTC", "USD", active=True),
    )

    @override
    async def fetch_page(self, symbol: Symbol, interval: Interval, window: Window) -> Candles:
        """Fetch one page; both wire bounds are inclusive, and without both neither counts."""
        grid = epoch_grid(interval)
        params = {
            "granularity": _SECONDS[interval],
            "start": _iso(window.start),
            "end": _iso(grid.at(grid.index(window.end) - 1)),
        }
        path = f"/products/{symbol.native}/candles"
        return await self._http.get_json(path, params, parse_candles, weight=_WEIGHT)

    @override
    async def fetch_newest(self, symbol: Symbol, interval: Interval) -> Candles:
        """Fetch the newest candles: hundreds without bounds, at most five minutes old."""
        params = {"granularity": _SECONDS[interval]}
        path = f"/products/{symbol.native}/candles"
        return await self._http.get_json(path, params, parse_candles, weight=_WEIGHT)

    @override
    async def fetch_symbols(self) -> Sequence[Symbol]:
        """Fetch the products; delisted ones stay on the list."""
        return await self._http.get_json("/products", {}, parse_symbols, weight=_WEIGHT)

    @override
    async def server_time(self) -> datetime:
        """Fetch the clock."""
        return await self._http.get_json("/time", {}, parse_time, weight=_WEIGHT)


def parse_candles(payload: object) -> Candles:
    """Read `[time s, low, high, open, close, volume]` rows, newest first.

    Raises:
        BadPayload: Not a list of rows with times.
    """
    try:
        time, *numbers = columns(payload, list, _COLUMNS)
        unknown = np.full(len(time), np.nan)
        return Candles(
            times(time, unit_ms=1000), *map(decimals, numbers), quote_volume=unknown, trades=unknown
        )
    except TypeError as error:
        raise BadPayload(_NAME, "answered candles of an unknown shape") from error


def parse_symbols(payload: object) -> SymbolList:
    """Read `/products`: ids are BASE-QUOTE already; flags that are missing are off.

    `base_currency` is no help for the name: BTCAUCTION-USD once had BTC.

    Raises:
        BadPayload: Not a list of products, or one of which nothing can be read.
    """
    try:
        return read_symbols(_NAME, payload, _symbol, "id")
    except TypeError as error:
        raise BadPayload(_NAME, "answered products of an unknown shape") from error


def _symbol(entry: Mapping[str, Any]) -> Symbol | None:
    name = text(entry["id"])
    if not _NAMES.fullmatch(name):
        return None
    base, _, quote = name.partition("-")
    return Symbol(
        exchange=_NAME,
        market_type="spot",
        name=name,
        native=name,
        base=base,
        quote=quote,
        active=entry.get("status") == "online" and not entry.get("trading_disabled"),
        tick_size=_size(entry.get("quote_increment")),
        step_size=_size(entry.get("base_increment")),
    )


def _size(size: object) -> float | None:
    return decimal(size) if size else None


def parse_time(payload: object) -> datetime:
    """Read the exchange's time.

    Raises:
        BadPayload: There is none.
    """
    try:
        text = cast("dict[str, Any]", payload)["iso"]
        return _aware(datetime.fromisoformat(text))
    except (KeyError, TypeError, ValueError) as error:
        raise BadPayload(_NAME, "answered a time of an unknown shape") from error


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError
    return time.astimezone(UTC)


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
