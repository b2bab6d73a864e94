"""A third-party client, pointed at the same exchanges, gets the API's rows."""

import asyncio

import ccxt
import httpx
import pytest
from support.sandbox import Sandbox

HOUR_MS = 3_600_000
START_MS = 1_788_220_800_000  # 2026-09-01


def fetch(exchange: ccxt.Exchange, known: str, to: str, market: str) -> list[list[float]]:
    """Have ccxt load the markets and fetch a day of hours; only its URLs change."""
    assert exchange.urls is not None
    urls: dict[str, str] = exchange.urls["api"]
    exchange.urls["api"] = {name: urls[name].replace(known, to) for name in urls}
    try:
        exchange.load_markets()
        return exchange.fetch_ohlcv(
            market, "1h", since=START_MS, limit=24, params={"until": START_MS + 24 * HOUR_MS - 1}
        )
    finally:
        if exchange.session:
            exchange.session.close()


@pytest.mark.parametrize(
    ("exchange", "known", "name", "series"),
    [
        pytest.param(
            ccxt.binanceusdm, "https://fapi.binance.com", "binance", "perp/ETH-USDT", id="binance"
        ),
        pytest.param(
            ccxt.hyperliquid,
            "https://api.{hostname}",
            "hyperliquid",
            "perp/ETH-USDC",
            id="hyperliquid",
        ),
        pytest.param(
            ccxt.coinbaseexchange,
            "https://api.{hostname}",
            "coinbase",
            "spot/ETH-USD",
            id="coinbase",
        ),
    ],
)
async def test_rows_of_ccxt_equal_those_of_the_api(  # noqa: PLR0913, PLR0917 - two are fixtures
    client: httpx.AsyncClient,
    sandbox: Sandbox,
    exchange: type[ccxt.Exchange],
    known: str,
    name: str,
    series: str,
) -> None:
    """The same day, number for number; the market's name is that of `ccxt_symbol`."""
    base = series.partition("/")[2].partition("-")[0]
    listed = await client.get("/meta/symbols", params={"exchange": name, "base": base})
    of_ours = {entry["symbol"]: entry["ccxt_symbol"] for entry in listed.json()["symbols"]}
    market = of_ours[series.partition("/")[2]]
    theirs = await asyncio.to_thread(fetch, exchange(), known, f"{sandbox.url}/{name}", market)
    window = {"start": START_MS, "end": START_MS + 24 * HOUR_MS}
    ours = (await client.get(f"/candles/{name}/{series}/1h", params=window)).json()

    assert ours["complete"] is True
    assert len(theirs) == 24
    assert theirs == ours["candles"]
