"""Lantern spot: an exchange that does not exist, with all that an adapter needs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import numpy as np
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
    decimals,
    integer,
    read_symbols,
    text,
    times,
)
from mdp_core.ratelimit.tariff import Tariff

_NAME = "lantern"
_NATIVE = {Interval.ONE_MINUTE: "min1", Interval.ONE_HOUR: "hour1"}


class LanternAdapter(ExchangeAdapter):
    """Speaks Lantern's REST interface."""

    facts = ExchangeFacts(
        name=_NAME,
        title="Lantern spot",
        market_type="spot",
        base_url="https://lantern.invalid",
        intervals={
            interval: OfferedInterval(native=native, grid=epoch_grid(interval))
            for interval, native in _NATIVE.items()
        },
        tariff=Tariff(capacity=20, per_second=5),
        page_size=100,
        fills_empty_intervals=True,
        settle_seconds=5,
        absence_grace_seconds=60,
        poll_seconds=2,
        supports_first_candle=False,
    )

    @override
    async def fetch_page(self, symbol: Symbol, interval: Interval, window: Window) -> Candles:
        """Fetch one page; both wire bounds are inclusive."""
        params: dict[str, str | int] = {
            "market": symbol.native,
            "every": _NATIVE[interval],
            "from": to_ms(window.start),
            "to": to_ms(window.end) - 1,
        }
        return await self._http.get_json("/bars", params, _parse_candles, weight=1)

    @override
    async def fetch_symbols(self) -> Sequence[Symbol]:
        """Fetch the markets."""
        return await self._http.get_json("/markets", {}, _parse_symbols, weight=1)

    @override
    async def server_time(self) -> datetime:
        """Fetch the clock."""
        return await self._http.get_json("/clock", {}, _parse_time, weight=1)


def _parse_candles(payload: object) -> Candles:
    try:
        time, *numbers = columns(payload, list, range(6))
        unknown = np.full(len(time), np.nan)
        return Candles(times(time), *map(decimals, numbers), quote_volume=unknown, trades=unknown)
    except TypeError as error:
        raise BadPayload(_NAME, "answered bars of an unknown shape") from error


def _parse_symbols(payload: object) -> SymbolList:
    try:
        return read_symbols(_NAME, payload, _symbol, "market")
    except TypeError as error:
        raise BadPayload(_NAME, "answered markets of an unknown shape") from error


def _symbol(entry: Mapping[str, Any]) -> Symbol:
    native = text(entry["market"])
    base, quote = native.split(":")
    active = entry["open"] is True
    return Symbol(_NAME, "spot", f"{base}-{quote}", native, base, quote, active=active)


def _parse_time(payload: object) -> datetime:
    try:
        return from_ms(integer(cast("dict[str, Any]", payload)["ms"]))
    except (KeyError, TypeError, OverflowError) as error:
        raise BadPayload(_NAME, "answered a time of an unknown shape") from error
