"""In real time, for three minutes: what a client sees that asks every second."""

import asyncio
import time

import httpx
import pytest
from support.sandbox import MINUTE_MS, Sandbox

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

PATH = "/candles/binance/perp/BTC-USDT/1m"
SECONDS = 190
# A provisional range is cached for two seconds, and the machine has other things to do.
LATE_MS = 4_000


async def test_every_second_the_newest_candle_is_closed_and_soon_there(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Never a forming candle; closed ones in seconds, provisional first, then settled."""
    until = time.time() + SECONDS
    seen: dict[int, list[int]] = {}
    rows: dict[int, list[float]] = {}
    while time.time() < until:
        before = _now_ms()
        body = (await client.get(PATH, params={"limit": 3})).json()
        newest = body["candles"][-1][0]
        assert newest + MINUTE_MS <= _now_ms()
        assert newest + MINUTE_MS >= (before - LATE_MS) // MINUTE_MS * MINUTE_MS
        assert body["settled_until"] + 2000 <= _now_ms()
        seen.setdefault(newest, []).append(body["settled_until"])
        rows |= {row[0]: row for row in body["candles"]}
        await asyncio.sleep(1 - time.time() % 1)
    truth = sandbox.candles("BTCUSDT", "1m", min(rows), max(rows) + MINUTE_MS)

    assert list(rows.values()) == truth
    assert len(seen) >= 3
    for newest in list(seen)[1:-1]:
        assert seen[newest][0] <= newest
        assert seen[newest][-1] == newest + MINUTE_MS
    # One probe of the history start aside: about four requests a minute for the edge, not sixty.
    assert len(sandbox.candle_requests()) <= SECONDS // 60 * 6 + 6


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
