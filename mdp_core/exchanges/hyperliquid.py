"""Hyperliquid perpetuals of the main dex.

Sources, read 2026-10: https://hyperliquid.gitbook.io: info endpoint, rate limits; the official
Python SDK; recorded answers and published measurements in public repositories.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
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
    counts,
    decimals,
    integer,
    read_symbols,
    text,
    times,
)
from mdp_core.ratelimit.tariff import Tariff

_NAME = "hyperliquid"
_INFO = "/info"
_QUOTES = {0: "USDC"}  # by collateral token

_PAGE_SIZE = 500
_PAGES_PER_REQUEST = 10
_MEMORY = 5000  # candles of a coin and interval; older windows answer []
_SNAPSHOT_WEIGHT, _ROWS_PER_WEIGHT = 20, 60
_META_WEIGHT, _TIME_WEIGHT = 20, 2

# There is no 6h. `1M` exists but is blocks of 30 days, no month: every row of real series fits.
_ABSENT = {Interval.SIX_HOURS, Interval.ONE_MONTH}
_PERPETUAL = re.compile(r"[^@#/:]+")
_THOUSANDS = re.compile(r"k[A-Z]")  # kPEPE counts in thousands of tokens
_DAY = timedelta(days=1)
# Daily rows that a coin has, for the budget: trading began in 2023. A few go back to 2020 (2,240
# rows in 2026-10); what those weigh more is settled as a debt of twelve tokens for each.
_DAYS_KNOWN = 1500
_LATEST_MS = 4_102_444_800_000  # 2100-01-01


def _weight(rows: int) -> int:
    return _SNAPSHOT_WEIGHT + rows // _ROWS_PER_WEIGHT


class HyperliquidPerpAdapter(ExchangeAdapter):
    """Speaks the info endpoint. Coin names are case-sensitive."""

    facts = ExchangeFacts(
        name=_NAME,
        title="Hyperliquid perpetuals",
        market_type="perp",
        base_url="https://api.hyperliquid.xyz",
        # Multiples from the epoch, weeks and 3d too: a week opens on Thursday.
        intervals={
            interval: OfferedInterval(native=interval.value, grid=epoch_grid(interval))
            for interval in Interval
            if interval not in _ABSENT
        },
        # 1200 weight per minute and IP; a snapshot's weight depends on the rows that come.
        tariff=Tariff(capacity=240, per_second=16, weigh=_weight),
        page_size=_PAGE_SIZE,
        fills_empty_intervals=True,
        settle_seconds=5,
        absence_grace_seconds=900,  # a minute without trades is published late, as a flat row
        poll_seconds=10,
        forming_seconds=10,
        supports_first_candle=True,
        history_start_interval=Interval.ONE_DAY,  # always within its memory
        retention_candles=_MEMORY,
        pages_per_request=_PAGES_PER_REQUEST,
        overshoot_slots=1,  # a candle that only overlaps the start comes too (recorded)
        reference_symbol=Symbol(_NAME, "perp", "BTC-USDC", "BTC", "BTC", "USDC", active=True),
    )

    @override
    async def fetch_page(self, symbol: Symbol, interval: Interval, window: Window) -> Candles:
        """Fetch pages; a candle that only overlaps the start comes too (recorded)."""
        slots = epoch_grid(interval).count(window.start, window.end)
        bounds = max(to_ms(window.start), 0), to_ms(window.end) - 1
        return await self._fetch_snapshot(symbol, interval, bounds, slots)

    @override
    async def fetch_first(
        self, symbol: Symbol, interval: Interval, since: datetime | None
    ) -> Candles:
        """Fetch the first traded candle and those after it.

        Daily rows reach back to the history start and beyond: rows with prices but no trades.
        """
        if since is None:
            rows = await self._fetch_snapshot(symbol, interval, (0, _LATEST_MS), _DAYS_KNOWN)
        else:
            rows = await self.fetch_page(symbol, interval, Window(since, since + _DAY))
        return from_first_traded(rows)

    @override
    async def fetch_first_again(
        self, symbol: Symbol, interval: Interval, since: datetime | None
    ) -> Candles:
        """Fetch the same from the first day after the epoch on, or two days of it."""
        if since is None:
            bounds = (_DAY // timedelta(milliseconds=1), _LATEST_MS)
            rows = await self._fetch_snapshot(symbol, interval, bounds, _DAYS_KNOWN)
        else:
            rows = await self.fetch_page(symbol, interval, Window(since, since + 2 * _DAY))
        return from_first_traded(rows)

    @override
    async def fetch_newest(self, symbol: Symbol, interval: Interval) -> Candles:
        """Fetch all that is remembered: bounds are required, and the newest rows come."""
        return await self._fetch_snapshot(symbol, interval, (0, _LATEST_MS), _MEMORY)

    async def _fetch_snapshot(
        self, symbol: Symbol, interval: Interval, bounds_ms: tuple[int, int], rows: int
    ) -> Candles:
        """Fetch what overlaps the inclusive bounds; `rows` are expected, for the budget."""
        start, end = bounds_ms
        request = {
            "coin": symbol.native,
            "interval": interval.value,
            "startTime": start,
            "endTime": end,
        }
        return await self._http.post_json(
            _INFO,
            {"type": "candleSnapshot", "req": request},
            lambda payload: parse_candles(payload, symbol.native, interval.value),
            weight=_weight(rows),
            charged=_charged,
        )

    @override
    async def fetch_symbols(self) -> Sequence[Symbol]:
        """Fetch the main dex's universe; delisted coins stay in it."""
        return await self._http.post_json(
            _INFO, {"type": "meta"}, parse_symbols, weight=_META_WEIGHT
        )

    @override
    def other_names(self, symbol: str) -> Sequence[str]:
        """Take a coin, or other programs' names of its market, for the market."""
        coin = re.sub(r"-(USD|PERP)$", "", symbol, flags=re.IGNORECASE)
        return tuple(f"{coin}-{quote}" for quote in _QUOTES.values())

    @override
    async def server_time(self) -> datetime:
        """Fetch the clock."""
        body = {"type": "exchangeStatus"}
        return await self._http.post_json(_INFO, body, parse_time, weight=_TIME_WEIGHT)


def parse_candles(payload: object, coin: str, interval: str) -> Candles:
    """Read the rows of `candleSnapshot`: objects `t T s i o c h l v n`, text prices.

    Raises:
        BadPayload: Not a list of rows with times, or none of this coin and interval; `null` stands
            for an error.
    """
    try:
        time, coins, intervals, *numbers, trades = columns(payload, dict, "tsiohlcvn")
        is_ours = [(coin, interval) == of for of in zip(coins, intervals, strict=True)]
        return Candles(
            times(
                [open_time if ours else None for open_time, ours in zip(time, is_ours, strict=True)]
            ),
            *map(decimals, numbers),
            quote_volume=np.full(len(time), np.nan),
            trades=counts(trades),
        )
    except TypeError as error:
        raise BadPayload(_NAME, "answered candles of an unknown shape") from error


def parse_symbols(payload: object) -> SymbolList:
    """Read `meta`: flags that are missing or null are off.

    Raises:
        BadPayload: There is no universe of coins, or one of which nothing can be read.
    """
    try:
        meta = cast("dict[str, Any]", payload)
        quote = _QUOTES[meta.get("collateralToken") or 0]
        return read_symbols(_NAME, meta["universe"], lambda entry: _symbol(entry, quote), "name")
    except (KeyError, TypeError, AttributeError) as error:
        raise BadPayload(_NAME, "answered a meta of an unknown shape") from error


def _symbol(entry: Mapping[str, Any], quote: str) -> Symbol | None:
    """Read a coin; None for what is no perpetual of the main dex.

    Those are spot ids (`@107`, `PURR/USDC`), outcome tokens (`#…`) and coins of builders' dexes
    (`xyz:TSLA`).
    """
    coin = text(entry["name"])
    if not _PERPETUAL.fullmatch(coin):
        return None
    digits = entry.get("szDecimals")
    return Symbol(
        exchange=_NAME,
        market_type="perp",
        name=f"{coin}-{quote}",
        native=coin,
        base=coin,
        quote=quote,
        active=not entry.get("isDelisted"),
        multiplier=1000 if _THOUSANDS.match(coin) else 1,
        step_size=None if digits is None else float(f"1e-{integer(digits)}"),
    )


def _charged(rows: Candles) -> int:
    return _weight(len(rows))


def from_first_traded(rows: Candles) -> Candles:
    """Leave out all before the first slot that has a trade by all its rows.

    A row whose volume is missing tells of none.
    """
    idle = rows.time[~((rows.volume > 0) | (rows.trades > 0))]
    traded = rows.time[~np.isin(rows.time, idle)]
    return rows[rows.time >= traded.min()] if len(traded) else Candles.empty()


def parse_time(payload: object) -> datetime:
    """Read the exchange's time.

    Raises:
        BadPayload: There is none.
    """
    try:
        return from_ms(integer(cast("dict[str, Any]", payload)["time"]))
    except (KeyError, TypeError, OverflowError) as error:
        raise BadPayload(_NAME, "answered a time of an unknown shape") from error
