"""The products of the sandbox's Coinbase, as its lists describe them."""

from collections.abc import Mapping
from dataclasses import replace

from scripts.sandbox.candles import Decimals
from scripts.sandbox.exchange import decimals_of, markets_of, ms_of, step_of, tail_of
from scripts.sandbox.markets import SandboxMarket

_LATE_MS = 45_000
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
BTC_MINUTES_MS = ms_of("2015-01-20T18:13Z")
UNKNOWN_STATUS = "hibernating"
_WORDS: Mapping[str, Mapping[str, object]] = {
    "BADGER-USD": {"limit_only": True},
    "NOVEL-USD": {"status": UNKNOWN_STATUS},
    "BTCAUCTION-USD": {"base_currency": "BTC", "cancel_only": True, "auction_mode": True},
}


def invented() -> dict[str, SandboxMarket]:
    """Give the products that are there without any file, by id."""
    tail = tail_of(" ".join(f"{base}-USD" for base in _TAIL.split()), "2021-01-04")
    markets = markets_of("coinbase", _PRODUCTS + tail, _decimals)
    quiet = {"BTC-USD": 0.001, "AERO-USD": 0.2, "WAXL-USD": 0.995}
    late = {"DASH-USD": _LATE_MS}
    return {
        name: replace(
            market,
            quiet=quiet.get(name, 0.02),
            publishes_quiet=False,
            late_ms=late.get(name, 0),
        )
        for name, market in markets.items()
    }


def _decimals(price: float) -> Decimals:
    return Decimals(min(decimals_of(price, digits=7).price, 8), 8)


def describe(name: str, market: SandboxMarket, now_ms: int) -> dict[str, object]:
    """Describe a product as the lists do."""
    base, quote = name.split("-", 1)
    is_delisted = market.dies_ms <= now_ms
    described: dict[str, object] = {
        "id": name,
        "basecurrency": base,
        "quotecurrency": quote,
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


def currency(code: str) -> dict[str, object]:
    """Describe a currency as the lists do."""
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
