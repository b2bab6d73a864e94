"""Hyperliquid as its info endpoint answers, under `/hyperliquid`: perpetuals, and a little else.

Peculiar coins, for those who test against them:

- `BTC`: rows with moving prices and no volume from 2020-08-19 on, trading begins 2023-02-26
- `PURR`: in three of ten minutes nobody trades; the flat row of such a minute is missing at first
  and published two minutes after its close
- `MATIC`: delisted, its history stays; `RNDR`: delisted, answers `[]`
- `xyz:TSLA`: a builder's coin (dex `xyz`); `PURR/USDC` and `@107`: spot
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import ClassVar, Final, TypeAlias, cast

import orjson

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import FixedGrid, Grid, Interval, epoch_grid
from scripts.sandbox.candles import (
    Columns,
    Decimals,
    Market,
    Series,
    Window,
    closes_ms,
    price_at,
)
from scripts.sandbox.exchange import (
    Answer,
    Call,
    Exchange,
    Listing,
    Page,
    Reading,
    Reply,
    SeriesBook,
    array_of,
    decimals_of,
    in_unit,
    markets_of,
    ms_of,
    numbers,
    reply,
    tail_of,
)
from scripts.sandbox.limits import ClockMinuteBudget, Refusal, Seconds
from scripts.sandbox.replay import Replay

_WEIGHT_PER_MINUTE = 1200
_MEMORY = 5000
_ROWS_PER_WEIGHT = 60
_LIGHT = {"allMids": 2, "exchangeStatus": 2}
_LATE_MS = 120_000
# Fourteen intervals, no 6h; weeks open on Thursdays and 1M is a block of 30 days: all of them are
# multiples from the epoch (seen in the rows of real series).
GRIDS: Final[Mapping[Interval, Grid]] = {
    interval: epoch_grid(interval) for interval in Interval if interval != Interval.SIX_HOURS
} | {Interval.ONE_MONTH: FixedGrid(timedelta(days=30))}
_PERPS = """
BTC 60000 2020-08-19T00:00Z · ETH 2500 2023-03-01T00:00Z · ATOM 8 2023-05-12T10:00Z
MATIC 0.6 2023-05-12T10:00Z 2024-10-01T12:00Z · DYDX 1.5 2023-05-12T10:00Z
SOL 140 2023-05-12T10:00Z · AVAX 30 2023-05-12T10:00Z · BNB 550 2023-05-12T10:00Z
APE 1.2 2023-05-12T10:00Z · OP 1.7 2023-05-12T10:00Z · LTC 90 2023-05-12T10:00Z
ARB 0.8 2023-05-12T10:00Z · DOGE 0.15 2023-05-12T10:00Z · INJ 20 2023-05-12T10:00Z
SUI 3 2023-05-12T10:00Z · kPEPE 0.01 2023-05-12T10:00Z · CRV 0.5 2023-06-01T10:00Z
LINK 14 2023-06-15T10:00Z · XRP 0.6 2023-07-13T10:00Z · APT 8 2023-07-15T10:00Z
RNDR 6 2023-08-01T10:00Z 1970-01-01T00:00Z · TIA 6 2023-10-31T14:00Z
kBONK 0.02 2023-11-22T14:00Z
kSHIB 0.02 2023-12-01T10:00Z · PURR 0.2 2024-04-16T12:00Z · WIF 2 2024-01-18T10:00Z
ENA 0.5 2024-04-02T10:00Z · kDOGS 0.5 2024-08-27T10:00Z 2025-02-01T10:00Z
HYPE 25 2024-12-05T09:00Z
"""
_TAIL = """
ACE ADA AI ALGO ALT AR ASTER AXS BADGER BANANA BCH BERA BIGTIME BIO BLUR BOME BRETT CAKE CELO CFX
COMP DOT DYM EIGEN ENS ETC ETHFI FARTCOIN FET FIL GALA GAS GMT GMX HBAR IMX IOTA IP JTO JUP KAITO
KAS LDO LINEA MANTA MAV MEME MINA MNT MOODENG NEAR NEO NOT ONDO ORDI PENDLE PENGU PNUT POL PUMP
"""
_BUILDERS = "xyz:TSLA 300 2025-10-20T12:00Z · xyz:XYZ100 24000 2025-10-13T12:00Z"
_SPOT = "PURR/USDC 0.2 2024-04-16T12:00Z · @107 25 2024-11-29T09:00Z"
_BTC_TRADED_MS = ms_of("2023-02-26T16:10Z")
_TOKENS = (("USDC", 8, 8), ("PURR", 0, 5), ("HYPE", 2, 8))
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
Entries: TypeAlias = Sequence[Mapping[str, object]]
_MALFORMED = Reply(422, b"Failed to deserialize the JSON body into the target type", "text/plain")
_NULL = Reply(500, b"null")


class Hyperliquid(Exchange):
    """`POST /info` with the types that public clients ask for."""

    name: ClassVar[str] = "hyperliquid"
    candle_params: ClassVar[frozenset[str]] = frozenset({"coin", "startTime", "endTime"})
    fields: ClassVar[Mapping[str, int | str]] = _FIELDS

    def __init__(self, replay: Replay, seconds: Seconds = time.time) -> None:
        """Make the exchange; `seconds` is the real time of the budget."""
        perps = replay.markets(self.name, _perps())
        self._dexes = {"": perps, "xyz": markets_of(self.name, _BUILDERS, _decimals)}
        self._spot = markets_of(self.name, _SPOT, _decimals)
        self._markets = perps | self._dexes["xyz"] | self._spot
        self._series = SeriesBook(self.name, GRIDS, lambda coin, _: self._markets[coin], replay)
        self._budget = ClockMinuteBudget(_WEIGHT_PER_MINUTE, seconds, bans=False)

    def answer(self, call: Call, now_ms: int) -> Answer:
        """Answer a call; a body that is not understood gets 422 and plain text."""
        if (call.method, call.path) != ("POST", "/info"):
            return Reply(404, b"", "text/plain")
        asked, req = str(call.params.get("type")), call.params.get("req")
        if asked == "candleSnapshot" and isinstance(req, dict):
            return self._snapshot(cast("dict[str, object]", req), now_ms)
        if asked not in _ANSWERS:
            return _MALFORMED
        found = _ANSWERS[asked](self, call.params.get("dex") or "", now_ms)
        if isinstance(found, Listing | Reading):
            return found
        return _NULL if found is None else reply(found)

    def charge(self, call: Call, answer: Answer) -> Refusal | None:
        """Book the weight: 20, for candles 1 more per 60 rows.

        Source: hyperliquid.gitbook.io, rate-limits-and-user-limits.
        """
        if isinstance(answer, Page):
            return self._budget.charge(call.host, 20 + len(answer.columns) // _ROWS_PER_WEIGHT)
        return self._budget.charge(call.host, _LIGHT.get(str(call.params.get("type")), 20))

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
        if coin not in self._markets:
            return _NULL
        series = self._series(coin, Interval(str(interval)))
        rows = _remembered(series, cast("int", start), cast("int", end), now_ms)
        asked = Interval(str(interval))
        encode = partial(_encode, series, {"s": coin, "i": asked})
        return Page(coin, asked, series, rows, self.fields, encode)

    def meta(self, dex: object, now_ms: int) -> Listing | None:
        """Describe the perpetuals of a dex; None: there is no such dex."""
        perps = self._perps(dex, now_ms)
        return None if perps is None else _listing(perps, _meta)

    def meta_and_contexts(self, dex: object, now_ms: int) -> Listing | None:
        """Describe the perpetuals of a dex, then their state, in the same order."""
        perps = self._perps(dex, now_ms)
        contexts = [_context(m, now_ms) for m in self._dexes.get(str(dex), {}).values()]
        if perps is None:
            return None
        return _listing(perps, lambda shown: [_meta(shown), contexts[: len(shown)]])

    def all_metas(self, dex: object, now_ms: int) -> list[object]:
        """Describe the perpetuals of every dex, the main one first."""
        del dex
        return [_meta(self._perps(name, now_ms) or ()) for name in self._dexes]

    def _perps(self, dex: object, now_ms: int) -> "Entries | None":
        markets = self._dexes.get(str(dex))
        if markets is None:
            return None
        return [_perp(coin, market, now_ms) for coin, market in markets.items()]

    def dexes(self, dex: object, now_ms: int) -> list[object]:
        """Name the dexes; the main one is null."""
        del dex, now_ms
        return [None, {"name": "xyz", "fullName": "XYZ", "deployer": "0x" + "8" * 40}]

    def spot_meta(self, dex: object, now_ms: int) -> dict[str, object]:
        """Describe the spot markets and their tokens."""
        del dex, now_ms
        tokens = [_token(place, *token) for place, token in enumerate(_TOKENS)]
        universe = [
            {"tokens": [place + 1, 0], "name": name, "index": place, "isCanonical": place == 0}
            for place, name in enumerate(self._spot)
        ]
        return {"universe": universe, "tokens": tokens}

    def spot_meta_and_contexts(self, dex: object, now_ms: int) -> list[object]:
        """Describe the spot markets, then their state."""
        states = [_context(market, now_ms) | {"coin": n} for n, market in self._spot.items()]
        return [self.spot_meta(dex, now_ms), states]

    def mids(self, dex: object, now_ms: int) -> dict[str, str] | None:
        """Give the price of every coin of a dex, and of the spot markets with the main one."""
        markets = self._dexes.get(str(dex), {}) | ({} if dex else self._spot)
        return {coin: str(price_at(market, now_ms)) for coin, market in markets.items()} or None

    def status(self, dex: object, now_ms: int) -> Reading:
        """Tell the exchange's time."""
        del dex
        return Reading(now_ms, lambda told: orjson.dumps({"time": told, "specialStatuses": None}))


_INTERVALS = frozenset(GRIDS)
_ANSWERS: Mapping[str, Callable[[Hyperliquid, object, int], object]] = {
    "meta": Hyperliquid.meta,
    "metaAndAssetCtxs": Hyperliquid.meta_and_contexts,
    "allPerpMetas": Hyperliquid.all_metas,
    "perpDexs": Hyperliquid.dexes,
    "spotMeta": Hyperliquid.spot_meta,
    "spotMetaAndAssetCtxs": Hyperliquid.spot_meta_and_contexts,
    "allMids": Hyperliquid.mids,
    "exchangeStatus": Hyperliquid.status,
}


def _remembered(series: Series, start: int, end: int, now_ms: int) -> Columns:
    """Find the rows that overlap the window: `T >= startTime and t <= endTime`.

    Only the newest 5000 candles exist, and of a wider window the most recent 5000 come back, so
    that the first row may open before `startTime`. Source: the API's documentation, and recorded
    answers.
    """
    asked = Window(start, end + 1).clipped()
    opens = to_ms(series.grid.floor(from_ms(asked.start_ms)))
    first = max(opens, series.newest(_MEMORY, now_ms))
    return series.last(Window(first, asked.end_ms), _MEMORY, now_ms)


def _encode(
    series: Series, names: Mapping[str, str], rows: Columns, unit: str | None = None
) -> bytes:
    """Print rows as objects: prices and volumes as strings, closing a millisecond early."""
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


def _listing(perps: Entries, body: Callable[[Entries], object]) -> Listing:
    weak = ("szDecimals", "N/A")
    return Listing(perps, "name", weak, lambda entries: orjson.dumps(body(entries)))


def _meta(universe: Entries) -> dict[str, object]:
    tiers = [{"lowerBound": "0.0", "maxLeverage": 40}]
    tables = [[50, {"description": "", "marginTiers": tiers}]]
    return {"universe": universe, "marginTables": tables, "collateralToken": 0}


def _is_u64(*values: object) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _perps() -> dict[str, Market]:
    perps = markets_of("hyperliquid", _PERPS + tail_of(_TAIL, "2023-06-05"), _decimals)
    perps["BTC"] = replace(perps["BTC"], traded_ms=_BTC_TRADED_MS)
    perps["PURR"] = replace(perps["PURR"], quiet=0.3, late_ms=_LATE_MS)
    return perps


def _decimals(price: float) -> Decimals:
    """Give five significant digits, at most 6 less `szDecimals` of them behind the point."""
    free = decimals_of(price, digits=5)
    return Decimals(min(free.price, 6 - free.size), free.size)


def _perp(coin: str, market: Market, now_ms: int) -> dict[str, object]:
    """Describe a perpetual; flags are there only when set."""
    described: dict[str, object] = {
        "szDecimals": market.decimals.size,
        "name": coin,
        "maxLeverage": 40 if coin == "BTC" else 10,
        "marginTableId": 50,
    }
    if market.dies_ms <= now_ms:
        described["isDelisted"] = True
    if coin.startswith("xyz:"):
        described |= {"onlyIsolated": True, "marginMode": "strictIsolated"}
    return described


def _context(market: Market, now_ms: int) -> dict[str, object]:
    price = str(price_at(market, now_ms))
    is_live = now_ms < market.dies_ms
    return {
        "funding": "0.0000125",
        "openInterest": "1000.0" if is_live else "0.0",
        "prevDayPx": price,
        "dayNtlVlm": "1000000.0" if is_live else "0.0",
        "dayBaseVlm": "1000.0" if is_live else "0.0",
        "premium": "0.0" if is_live else None,
        "oraclePx": price,
        "markPx": price,
        "midPx": price if is_live else None,
        "impactPxs": [price, price] if is_live else None,
    }


def _token(place: int, name: str, size: int, wei: int) -> dict[str, object]:
    return {
        "name": name,
        "szDecimals": size,
        "weiDecimals": wei,
        "index": place,
        "tokenId": f"0x{place:032x}",
        "isCanonical": place < len(_TOKENS) - 1,
        "evmContract": None,
        "fullName": None,
    }
