"""The symbols of the sandbox's Binance: known names, oddities, a long tail.

Fields and their values are those of a recorded answer of 2026; the numbers are invented.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product

from scripts.sandbox.candles import DISTANT_FUTURE_MS, Decimals, TimeSpan
from scripts.sandbox.exchange import decimals_of, markets_of, ms_of, price_of, step_of
from scripts.sandbox.markets import SandboxMarket, seed_of
from scripts.sandbox.replay import Replay

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_STALE_MS = 37 * _HOUR_MS  # serverTime of a recorded exchangeInfo was 37 hours old
_QUOTES = ("USDT", "USDC", "BUSD", "BTC")

_KNOWN = """
BTC-USDT 60000 2019-09-08T17:55Z · ETH-USDT 2500 2019-11-27T07:45Z · XRP-USDT 0.6 2020-01-06T10:00Z
LTC-USDT 90 2020-01-09T08:00Z · SOL-USDT 140 2020-09-14T07:00Z · BNB-USDT 550 2020-02-10T08:00Z
ADA-USDT 0.5 2020-01-31T08:00Z · LINK-USDT 14 2020-01-17T08:00Z · DOGE-USDT 0.15 2020-07-10T09:00Z
DOT-USDT 6 2020-08-22T07:00Z · AVAX-USDT 30 2020-09-23T07:00Z · TRX-USDT 0.2 2020-01-15T08:00Z
1INCH-USDT 0.4 2020-12-25T07:00Z · 1000SHIB-USDT 0.02 2021-05-10T11:00Z
1000PEPE-USDT 0.01 2023-05-05T15:30Z · 1000BONK-USDT 0.02 2023-11-22T14:00Z
BTC-USDC 60000 2024-01-03T09:00Z · ETH-USDC 2500 2024-01-03T09:00Z · SOL-USDC 140 2024-01-03T09:30Z
ETH-BTC 0.05 2021-08-19T07:00Z · NEAR-USDT 5 2020-10-15T07:00Z · ATOM-USDT 8 2020-02-07T08:00Z
SUI-USDT 3 2023-05-03T12:00Z · APT-USDT 8 2022-10-19T02:00Z · ARB-USDT 0.8 2023-03-23T14:00Z
OP-USDT 1.7 2022-06-01T14:00Z · TON-USDT 5 2024-03-01T14:00Z · WIF-USDT 2 2024-01-18T14:00Z
FIL-USDT 4 2020-10-16T07:00Z · UNI-USDT 8 2020-09-18T07:00Z · AAVE-USDT 150 2020-10-16T08:00Z
ETC-USDT 22 2020-01-16T08:00Z · BCH-USDT 400 2019-12-16T08:00Z · XLM-USDT 0.2 2020-01-20T08:00Z
INJ-USDT 20 2022-08-11T14:00Z · TIA-USDT 6 2023-10-31T14:00Z · SEI-USDT 0.4 2023-08-15T12:00Z
币安人生-USDT 0.2 2025-10-20T11:33Z
OMG-USDT 0.6 2020-06-25T08:00Z 2025-01-31T09:00Z · RNDR-USDT 6 2022-02-02T12:00Z 2024-07-22T09:00Z
FTM-USDT 0.7 2020-10-30T07:00Z 2025-01-13T09:00Z
BTC-BUSD 27000 2021-01-11T09:00Z 2023-12-05T09:00Z
"""
_BTC_ONBOARD_MS = 1_569_398_400_000  # as shown in 2021 and 2025, after the first candle
_XRP_DOWN = TimeSpan(1_718_157_600_000, 1_718_164_800_000)  # 2024-06-12 02:00 to 04:00
_UNKNOWN_STATUS = "AUCTION_MATCH"
_TAIL = 300
_TAIL_BEGINS_MS = 1_580_515_200_000  # 2020-02-01
_TAIL_EVERY_MS = 6 * _DAY_MS
_DELISTED_EVERY = 12


@dataclass(frozen=True, slots=True)
class Listed:
    """A symbol with the words of its metadata that tell symbols apart."""

    base: str
    quote: str
    market: SandboxMarket
    onboard_ms: int
    name: str = ""
    contract_type: str = "PERPETUAL"
    status: str = "TRADING"
    underlying: str = "COIN"

    def __post_init__(self) -> None:
        """Name the symbol after base and quote unless it has another name."""
        object.__setattr__(self, "name", self.name or self.base + self.quote)

    def status_at(self, now_ms: int) -> str:
        """Tell the status: not yet listed, delisted, or its own."""
        if now_ms < self.onboard_ms:
            return "PENDING_TRADING"
        return "SETTLING" if self.market.dies_ms <= now_ms else self.status


def listing(replay: Replay) -> list[Listed]:
    """List all symbols; a replayed one trades since its first traded day."""
    known = {symbol.name: symbol for symbol in _invented()}
    markets = replay.markets("binance", {name: known[name].market for name in known})
    for name in replay.symbols("binance"):
        market = markets[name]
        base, quote = _split(name)
        known[name] = Listed(base, quote, market, market.traded_ms, name)
    return list(known.values())


def exchange_info(symbols: list[Listed], now_ms: int) -> dict[str, object]:
    """Give the body of `exchangeInfo`.

    Its `serverTime` is stale, as the documentation warns.
    """
    orders = {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}
    weight = {"rateLimitType": "REQUEST_WEIGHT", "limit": 2400}
    return {
        "timezone": "UTC",
        "serverTime": now_ms - _STALE_MS,
        "futuresType": "U_MARGINED",
        "rateLimits": [orders | weight, orders],
        "exchangeFilters": [],
        "assets": [
            {"asset": asset, "marginAvailable": True, "autoAssetExchange": "-10000"}
            for asset in ("USDT", "BTC", "BNB", "ETH", "USDC")
        ],
        "symbols": [_symbol(symbol, now_ms) for symbol in symbols],
    }


def with_known_status(entry: Mapping[str, object]) -> Mapping[str, object]:
    """Return a symbol's entry for clients that refuse an unknown status."""
    return {**entry, "status": "CLOSE"} if entry["status"] == _UNKNOWN_STATUS else entry


def _symbol(listed: Listed, now_ms: int) -> dict[str, object]:
    status = listed.status_at(now_ms)
    delivery = listed.market.dies_ms
    if status != "SETTLING" and listed.contract_type == "PERPETUAL":
        delivery = DISTANT_FUTURE_MS
    decimals = listed.market.decimals
    is_dated = "_" in listed.name
    return {
        "symbol": listed.name,
        "pair": listed.base + listed.quote if is_dated else listed.name,
        "contractType": listed.contract_type,
        "deliveryDate": delivery,
        "onboardDate": listed.onboard_ms,
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": listed.base,
        "quoteAsset": listed.quote,
        "marginAsset": listed.quote,
        "pricePrecision": decimals.price,
        "quantityPrecision": decimals.size,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": listed.underlying,
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": _filters(decimals),
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
        "permissionSets": ["GRID", "COPY"],
    }


def _filters(decimals: Decimals) -> list[dict[str, object]]:
    tick, step = step_of(decimals.price), step_of(decimals.size)
    sizes = {"minQty": step, "maxQty": "1000000", "stepSize": step}
    return [
        {"maxPrice": "4529764", "tickSize": tick, "filterType": "PRICE_FILTER", "minPrice": tick},
        {**sizes, "filterType": "LOT_SIZE"},
        {**sizes, "filterType": "MARKET_LOT_SIZE"},
        {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        {"notional": "5", "filterType": "MIN_NOTIONAL"},
        {
            "multiplierDown": "0.9500",
            "multiplierUp": "1.0500",
            "multiplierDecimal": "4",
            "filterType": "PERCENT_PRICE",
        },
    ]


def _invented() -> Iterator[Listed]:
    for pair, market in markets_of("binance", _KNOWN, _decimals).items():
        base, quote = pair.split("-")
        hole = _XRP_DOWN if pair == "XRP-USDT" else None
        onboard_ms = _BTC_ONBOARD_MS if pair == "BTC-USDT" else market.born_ms
        yield Listed(base, quote, replace(market, hole=hole), onboard_ms)
    yield from _oddities()
    yield from _tail()


def _oddities() -> Iterator[Listed]:
    """List what a client has to leave out, or to take although it looks odd."""
    born = ms_of("2021-06-01T08:00Z")

    def odd(base: str, price: float, born_ms: int = born, **words: str) -> Listed:
        market = _market(base + "USDT", price, born_ms)
        return Listed(base, "USDT", market, born_ms, **words)

    quiet = odd("DEFI", 700, underlying="INDEX")
    yield replace(quiet, market=replace(quiet.market, quiet=0.3))
    yield odd(
        "XAU",
        2600,
        ms_of("2025-12-11T08:05Z"),
        contract_type="TRADIFI_PERPETUAL",
        underlying="COMMODITY",
    )
    dated = odd(
        "BTC",
        60000,
        ms_of("2026-06-26T08:00Z"),
        name="BTCUSDT_261225",
        contract_type="CURRENT_QUARTER",
    )
    yield replace(dated, market=replace(dated.market, dies_ms=ms_of("2026-12-25T08:00Z")))
    pending = odd("BTCST", 20, contract_type="", status="PENDING_TRADING")
    yield replace(pending, market=replace(pending.market, dies_ms=0))
    yield odd("NOVEL", 3, status=_UNKNOWN_STATUS)
    yield odd("ODD", 3, contract_type="PERPETUAL_SQUARED")


def _tail() -> Iterator[Listed]:
    """List invented names, one every six days from 2020-02 on.

    Each twelfth is delisted again.
    """
    names = ("".join(parts) for parts in product("BDFGKLMV", "AEIOU", "KLMNRSX", "AEIOU"))
    for i, base in enumerate(islice(names, 0, 4 * _TAIL, 4)):
        born = _TAIL_BEGINS_MS + i * _TAIL_EVERY_MS
        market = _market(base + "USDT", price_of(base), born)
        if i % _DELISTED_EVERY == 0:
            market = replace(market, dies_ms=born + 300 * _DAY_MS + 9 * _HOUR_MS)
        yield Listed(base, "USDT", market, born)


def _market(name: str, price: float, born_ms: int) -> SandboxMarket:
    return SandboxMarket(seed_of("binance", name), price, _decimals(price), born_ms)


def _decimals(price: float) -> Decimals:
    return decimals_of(price, digits=6)


def _split(name: str) -> tuple[str, str]:
    """Split the name of a replayed symbol that is not otherwise known."""
    quote = next((quote for quote in _QUOTES if name.endswith(quote) and name != quote), "USDT")
    return name.removesuffix(quote), quote
