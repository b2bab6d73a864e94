"""ccxt, pointed at a dialect by configuration alone."""

import asyncio
from contextlib import closing
from typing import Any

import ccxt
import httpx
import pytest
from support.dialects import Doors, opened_doors
from support.standing import NOON_MS

from mdp_core.settings import Settings
from scripts.cli.ready_configuration import ccxt_urls

HOUR = 3_600_000
KINDS = {
    "binance": (ccxt.binanceusdm, "ETH/USDT:USDT"),
    "hyperliquid": (ccxt.hyperliquid, "ETH/USDC:USDC"),
    "coinbase": (ccxt.coinbaseexchange, "ETH/USD"),
}
START = NOON_MS - 60 * HOUR
CALLS: list[dict[str, Any]] = [
    {"timeframe": "1h", "since": START, "limit": 24},
    {"timeframe": "1h", "since": START, "limit": 24, "params": {"until": START + 5 * HOUR}},
    {"timeframe": "1m", "limit": 30},
    {"timeframe": "1d", "since": START - 1000 * HOUR, "limit": 50},
    {"timeframe": "1h", "since": START, "limit": 60, "params": {"paginate": True}},
]


def told(exchange: str, base: str) -> list[object]:
    """Have ccxt ask for markets and candles in many ways; return what it says."""
    kind, market = KINDS[exchange]
    program = kind({"urls": {"api": ccxt_urls(exchange, base)}, "enableRateLimit": False})
    program.milliseconds = lambda: NOON_MS  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return [sorted(program.load_markets()), *(program.fetch_ohlcv(market, **c) for c in CALLS)]
    finally:
        if program.session:
            program.session.close()


@pytest.mark.parametrize("exchange", KINDS)
async def test_ccxt_hears_the_same_from_both(settings: Settings, exchange: str) -> None:
    """Markets, `since`, `limit`, `until`, newest and paging: nothing differs."""
    async with opened_doors(settings) as doors:
        await doors.refill()
        ours = await asyncio.to_thread(told, exchange, doors.base(exchange))
        there = f"{doors.standing.sandbox.url}/{exchange}"
        theirs = await asyncio.to_thread(told, exchange, there)

        assert all(theirs)
        assert ours == theirs


async def test_what_was_asked_for_before_is_not_asked_for_again(settings: Settings) -> None:
    """Closed candles come from the store, the forming one is shared."""
    params = {"symbol": "ETHUSDT", "interval": "1h", "limit": "48"}
    async with opened_doors(settings) as doors:
        first, _ = await doors.both("binance", "/fapi/v1/klines", params)
        doors.standing.sandbox.clear()
        url = f"{doors.base('binance')}/fapi/v1/klines"
        answers = await asyncio.gather(*(doors.http.get(url, params=params) for _ in range(5)))

        assert [answer.json() for answer in answers] == [first.json()] * 5
        assert doors.standing.sandbox.requests() == []


async def test_keys_and_signatures_never_reach_an_exchange(settings: Settings) -> None:
    """Refused in the dialect's form; an empty key, which two programs send, is none."""
    async with opened_doors(settings) as doors:
        base, post = doors.base("binance"), f"{doors.base('hyperliquid')}/info"
        price = f"{base}/fapi/v1/ticker/price?symbol=BTCUSDT"
        body = {"type": "meta", "signature": {"r": "1"}}
        doors.standing.sandbox.clear()
        refused = [
            await doors.http.get(price, headers={"X-MBX-APIKEY": "key"}),
            await doors.http.get(price, headers={"Authorization": "Bearer x"}),
            await doors.http.get(f"{price}&%73ignature=1"),
            await doors.http.get(f"{doors.base('coinbase')}/time", headers={"CB-ACCESS-KEY": "k"}),
            await doors.http.post(post, json=body),
        ]
        unsent = doors.standing.sandbox.requests()
        sent = await doors.http.get(price, headers={"X-MBX-APIKEY": "", "Cookie": "c=1"})
        (entry,) = doors.standing.sandbox.requests()

        assert [answer.status_code for answer in refused] == [401] * 5
        assert refused[0].json()["code"] == -2015
        assert set(refused[3].json()) == {"message"}
        assert unsent == []
        assert sent.json()["symbol"] == "BTCUSDT"
        assert not entry["headers"].keys() & {"x-mbx-apikey", "authorization", "cookie"}
        assert entry["headers"]["user-agent"].startswith("mdp/")


@pytest.mark.parametrize("target", ["fapi/v1/../v2/x", "fapi//v1", "fapi/v1/a%2Fb", "%2e%2e/x"])
async def test_paths_that_mean_others_are_refused(settings: Settings, target: str) -> None:
    """They are not sent on."""
    async with opened_doors(settings) as doors:
        place = httpx.URL(doors.url)
        head = f"GET /dialect/{doors.token}/binance/{target} HTTP/1.1\r\nHost: x\r\n"
        reader, writer = await asyncio.open_connection(place.host, place.port)
        with closing(writer):
            writer.write(f"{head}Connection: close\r\n\r\n".encode())
            answer = await reader.read()

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert doors.standing.sandbox.requests() == []


async def test_methods_that_change_something_are_refused(settings: Settings) -> None:
    """405 in the dialect's form."""
    async with opened_doors(settings) as doors:
        ordered = await doors.http.post(f"{doors.base('binance')}/fapi/v1/order")
        told = await doors.http.post(f"{doors.base('hyperliquid')}/exchange", json={})

        assert (ordered.status_code, ordered.json()["code"]) == (405, -1020)
        assert told.status_code == 405


async def test_used_up_limit_is_429_with_a_time(settings: Settings) -> None:
    """A question to the exchange waits; stored candles go on."""
    async with opened_doors(settings) as doors:
        await _use_up(doors)


async def _use_up(doors: Doors) -> None:
    params = {"symbol": "BTCUSDT", "interval": "1m", "limit": "10", "endTime": str(START)}
    stored, _ = await doors.both("binance", "/fapi/v1/klines", params)
    doors.standing.sandbox.fault("rate_limited", times=100, retry_after=30)
    other = {**params, "symbol": "ETHUSDT"}
    url = f"{doors.base('binance')}/fapi/v1/klines"
    waits = await doors.http.get(url, params=other)
    again = await doors.http.get(url, params=params)

    assert (waits.status_code, waits.json()["code"]) == (429, -1003)
    assert int(waits.headers["Retry-After"]) >= 1
    assert again.json() == stored.json()
