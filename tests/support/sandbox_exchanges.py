"""A sandbox inside the test's process, and the same question put to each exchange."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from mdp_core.domain.clock import Clock, to_ms
from scripts.sandbox.app import SandboxOptions, create_sandbox

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
HARDLY_MOVING = 1e-9
NOW = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
NOW_MS = to_ms(NOW)
EXCHANGES = ("binance", "hyperliquid", "coinbase")
COUNT = 10
LAST_MS = NOW_MS - NOW_MS % HOUR - MINUTE
START_MS = LAST_MS - (COUNT - 1) * MINUTE
SYMBOLS = {"binance": "BTCUSDT", "hyperliquid": "BTC", "coinbase": "BTC-USD"}
PLACES: Mapping[str, tuple[int | str, ...]] = {  # time, open, high, low, close, volume
    "binance": (0, 1, 2, 3, 4, 5),
    "hyperliquid": ("t", "o", "h", "l", "c", "v"),
    "coinbase": (0, 3, 2, 1, 4, 5),
}

Row = list[float]


@asynccontextmanager
async def opened(
    now: datetime = NOW, *, data: Path | None = None, limits: bool = False
) -> AsyncGenerator[httpx.AsyncClient]:
    """Give a client of a sandbox whose clock hardly moves."""
    clock = Clock.starting_at(now, HARDLY_MOVING)
    app = create_sandbox(SandboxOptions(clock=clock, data=data, limits=limits))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        yield client


async def ask(
    client: httpx.AsyncClient, exchange: str, symbol: str = "", start_ms: int = START_MS
) -> httpx.Response:
    """Ask one exchange for ten minutes of bitcoin, or of another symbol."""
    symbol = symbol or SYMBOLS[exchange]
    end_ms = start_ms + (COUNT - 1) * MINUTE
    if exchange == "binance":
        query = {"symbol": symbol, "interval": "1m", "startTime": start_ms, "endTime": end_ms}
        return await client.get("/binance/fapi/v1/klines", params=query)
    if exchange == "hyperliquid":
        req = {"coin": symbol, "interval": "1m", "startTime": start_ms, "endTime": end_ms}
        return await client.post("/hyperliquid/info", json={"type": "candleSnapshot", "req": req})
    bounds = {"start": _iso(start_ms), "end": _iso(end_ms), "granularity": "60"}
    return await client.get(f"/coinbase/products/{symbol}/candles", params=bounds)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()


def raw(exchange: str, response: httpx.Response) -> list[Any]:
    """Give the rows as they came, ascending."""
    assert response.status_code == 200, response.text
    rows: list[Any] = response.json()
    return rows[::-1] if exchange == "coinbase" else rows


def numbers(exchange: str, response: httpx.Response) -> list[Row]:
    """Give the rows as time (ms), open, high, low, close, volume, ascending."""
    rows = [[float(row[place]) for place in PLACES[exchange]] for row in raw(exchange, response)]
    scale = 1000 if exchange == "coinbase" else 1
    return [[row[0] * scale, *row[1:]] for row in rows]


async def time_of(client: httpx.AsyncClient, exchange: str) -> int:
    """Ask one exchange for its time, in its own unit of milliseconds."""
    if exchange == "binance":
        return (await client.get("/binance/fapi/v1/time")).json()["serverTime"]
    if exchange == "hyperliquid":
        asked = await client.post("/hyperliquid/info", json={"type": "exchangeStatus"})
        return asked.json()["time"]
    told = (await client.get("/coinbase/time")).json()
    told_ms = to_ms(datetime.fromisoformat(told["iso"]))
    assert told_ms == round(told["epoch"] * 1000)
    return told_ms


async def symbols_of(client: httpx.AsyncClient, exchange: str) -> list[dict[str, Any]]:
    """Ask one exchange for the entries of its list of symbols."""
    if exchange == "binance":
        return (await client.get("/binance/fapi/v1/exchangeInfo")).json()["symbols"]
    if exchange == "hyperliquid":
        asked = await client.post("/hyperliquid/info", json={"type": "meta"})
        return asked.json()["universe"]
    return (await client.get("/coinbase/products")).json()


async def order(client: httpx.AsyncClient, exchange: str, fault: str, **more: object) -> None:
    """Order a fault; fail if it is refused."""
    answer = await client.post(
        "/_sandbox/faults", json=[{"exchange": exchange, "fault": fault, **more}]
    )
    assert answer.status_code == 200, answer.text


async def log(client: httpx.AsyncClient) -> list[Mapping[str, Any]]:
    """Give the log of requests."""
    return (await client.get("/_sandbox/requests")).json()
