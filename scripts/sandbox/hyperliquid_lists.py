"""The lists of the sandbox's Hyperliquid: perpetuals, spot markets, states."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import orjson

from scripts.sandbox.candles import Decimals
from scripts.sandbox.exchange import SymbolsReply, decimals_of, markets_of, ms_of, tail_of
from scripts.sandbox.markets import SandboxMarket, price_at
from scripts.sandbox.replay import Replay

Entries: TypeAlias = Sequence[Mapping[str, object]]

_NAME = "hyperliquid"
_LATE_MS = 120_000
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


class HyperliquidLists:
    """The markets of one Hyperliquid.

    `perps` are those of the main dex, `markets` all.
    """

    def __init__(self, replay: Replay) -> None:
        """List what is invented and what is replayed."""
        self.perps = replay.markets(_NAME, _perps())
        self._dexes = {"": self.perps, "xyz": markets_of(_NAME, _BUILDERS, _decimals)}
        self._spot = markets_of(_NAME, _SPOT, _decimals)
        self.markets = self.perps | self._dexes["xyz"] | self._spot

    def meta(self, dex: object, now_ms: int) -> SymbolsReply | None:
        """Describe the perpetuals of a dex; None: there is no such dex."""
        perps = self._entries(dex, now_ms)
        return None if perps is None else _listing(perps, _meta)

    def meta_and_contexts(self, dex: object, now_ms: int) -> SymbolsReply | None:
        """Describe the perpetuals of a dex, then their state, in the same order."""
        perps = self._entries(dex, now_ms)
        contexts = [_context(m, now_ms) for m in self._dexes.get(str(dex), {}).values()]
        if perps is None:
            return None
        return _listing(perps, lambda shown: [_meta(shown), contexts[: len(shown)]])

    def all_metas(self, dex: object, now_ms: int) -> list[object]:
        """Describe the perpetuals of every dex, the main one first."""
        del dex
        return [_meta(self._entries(name, now_ms) or ()) for name in self._dexes]

    def _entries(self, dex: object, now_ms: int) -> Entries | None:
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
        """Give the price of every coin of a dex.

        And of the spot markets with the main one.
        """
        markets = self._dexes.get(str(dex), {}) | ({} if dex else self._spot)
        return {coin: str(price_at(market, now_ms)) for coin, market in markets.items()} or None


LISTS: Final[Mapping[str, Callable[[HyperliquidLists, object, int], object]]] = {
    "meta": HyperliquidLists.meta,
    "metaAndAssetCtxs": HyperliquidLists.meta_and_contexts,
    "allPerpMetas": HyperliquidLists.all_metas,
    "perpDexs": HyperliquidLists.dexes,
    "spotMeta": HyperliquidLists.spot_meta,
    "spotMetaAndAssetCtxs": HyperliquidLists.spot_meta_and_contexts,
    "allMids": HyperliquidLists.mids,
}


def _listing(perps: Entries, body: Callable[[Entries], object]) -> SymbolsReply:
    weak = ("szDecimals", "N/A")
    return SymbolsReply(perps, "name", weak, lambda entries: orjson.dumps(body(entries)))


def _meta(universe: Entries) -> dict[str, object]:
    tiers = [{"lowerBound": "0.0", "maxLeverage": 40}]
    tables = [[50, {"description": "", "marginTiers": tiers}]]
    return {"universe": universe, "marginTables": tables, "collateralToken": 0}


def _perps() -> dict[str, SandboxMarket]:
    perps = markets_of("hyperliquid", _PERPS + tail_of(_TAIL, "2023-06-05"), _decimals)
    perps["BTC"] = replace(perps["BTC"], traded_ms=_BTC_TRADED_MS)
    perps["PURR"] = replace(perps["PURR"], quiet=0.3, late_ms=_LATE_MS)
    return perps


def _decimals(price: float) -> Decimals:
    """Return five significant digits, at most 6 - `szDecimals` behind the point."""
    free = decimals_of(price, digits=5)
    return Decimals(min(free.price, 6 - free.size), free.size)


def _perp(coin: str, market: SandboxMarket, now_ms: int) -> dict[str, object]:
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


def _context(market: SandboxMarket, now_ms: int) -> dict[str, object]:
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
