"""The exchange's cost of many clients that poll the newest candle."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from support.sandbox import MINUTE_MS, Sandbox, running_sandbox
from support.services import serving

from mdp_core.domain.clock import Clock, to_ms
from mdp_core.settings import Settings
from scripts.sandbox.app import SandboxOptions

NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
LAST_MS = to_ms(NOON) - MINUTE_MS
SERIES = {
    "binance": "binance/perp/ETH-USDT/1m",
    "hyperliquid": "hyperliquid/perp/ETH-USDC/1m",
    "coinbase": "coinbase/spot/ETH-USD/1m",
}
# Seconds between two requests for a provisional range, at the least.
PERIOD = {"binance": 2, "hyperliquid": 10, "coinbase": 2}
CLIENTS, POLLS = 50, 3


def candle_requests(sandbox: Sandbox) -> int:
    return sum(
        "req" in request["params"] or "lines" in request["path"] or "/candles" in request["path"]
        for request in sandbox.requests()
    )


def standing(seconds: float) -> Clock:
    """Make a clock that stands so long after noon."""
    return Clock.starting_at(NOON + timedelta(seconds=seconds), speed=1e-6)


async def latest(client: httpx.AsyncClient, exchange: str) -> dict[str, Any]:
    answer = await client.get(f"/latest/{SERIES[exchange]}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def poll(client: httpx.AsyncClient, exchange: str) -> list[dict[str, Any]]:
    """Let many clients ask several times; give all they were told."""

    async def one() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        for poll in range(POLLS):
            await asyncio.sleep(0.1 if poll else 0)
            told.append(await latest(client, exchange))
        return told

    return [
        line for told in await asyncio.gather(*(one() for _ in range(CLIENTS))) for line in told
    ]


@pytest.mark.parametrize(("exchange", "settle_seconds"), [("binance", 2), ("hyperliquid", 5)])
async def test_polling_costs_one_request_a_period_while_provisional_and_none_afterwards(
    settings: Settings, exchange: str, settle_seconds: float
) -> None:
    """Fifty clients, time and again: the exchange is asked as if there were one."""
    provisional, settled = standing(settle_seconds - 1), standing(settle_seconds + 1)
    with running_sandbox(SandboxOptions(clock=provisional, limits=False)) as sandbox:
        async with serving(settings.model_copy(update={"clock": provisional}), sandbox) as client:
            await latest(client, exchange)
            sandbox.clear()
            begun = time.monotonic()
            told = await poll(client, exchange)
            periods = (time.monotonic() - begun) // PERIOD[exchange]
            asked = candle_requests(sandbox)
    with running_sandbox(SandboxOptions(clock=settled, limits=False)) as sandbox:
        async with serving(settings.model_copy(update={"clock": settled}), sandbox) as client:
            newest = await latest(client, exchange)
            sandbox.clear()
            again = await asyncio.gather(*(latest(client, exchange) for _ in range(CLIENTS)))
            for_nothing = sandbox.requests()

    assert {(line["candle"]["time"], line["settled"]) for line in told} == {(LAST_MS, False)}
    assert len(told) == CLIENTS * POLLS
    assert asked <= 1 + periods
    assert newest["settled"] is True
    assert {answer["candle"]["time"] for answer in again} == {newest["candle"]["time"]}
    assert for_nothing == []


@pytest.mark.parametrize(
    ("exchange", "seconds"),
    [
        pytest.param("binance", 10, id="binance, when it should be final"),
        pytest.param("coinbase", 30, id="coinbase, while it is provisional"),
    ],
)
async def test_late_candle_is_served_when_it_comes_and_settles_by_itself(
    settings: Settings, exchange: str, seconds: float
) -> None:
    """Withheld for two seconds: until then the one before it is the newest."""
    clock = standing(seconds)
    told = settings.model_copy(update={"clock": clock})
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        async with serving(told, sandbox) as client:
            await client.get(f"/coverage/{SERIES[exchange]}")  # so that the fault hits a page
            sandbox.fault("late_candle", exchange=exchange, seconds=2)
            body = (await client.get(f"/candles/{SERIES[exchange]}", params={"limit": 3})).json()
            early = await latest(client, exchange)
            seen = early
            while seen["candle"]["time"] < LAST_MS:
                await asyncio.sleep(0.1)
                seen = await latest(client, exchange)
    later = standing(600)
    with running_sandbox(SandboxOptions(clock=later, limits=False)) as sandbox:
        async with serving(settings.model_copy(update={"clock": later}), sandbox) as client:
            window = {"start": LAST_MS, "end": LAST_MS + MINUTE_MS}
            final = (await client.get(f"/candles/{SERIES[exchange]}", params=window)).json()

    assert (body["complete"], body["settled_until"]) == (True, LAST_MS)
    assert early["candle"]["time"] == LAST_MS - MINUTE_MS
    assert seen["candle"]["time"] == LAST_MS
    assert (final["count"], final["settled_until"]) == (1, LAST_MS + MINUTE_MS)
    assert final["candles"][0][4] == seen["candle"]["close"]


async def test_request_that_begins_inside_a_tail_shares_it(settings: Settings) -> None:
    """Two windows in two seconds, the second inside the first's provisional part."""
    clock = standing(1)
    told = settings.model_copy(update={"clock": clock})
    path = f"/candles/{SERIES['coinbase']}"
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        async with serving(told, sandbox, settle_seconds=150) as client:
            await latest(client, "coinbase")
            await asyncio.sleep(PERIOD["coinbase"] + 0.1)  # nothing tells that a range is forgotten
            sandbox.clear()
            begun = time.monotonic()
            wide = (await client.get(path, params={"start": LAST_MS - 2 * MINUTE_MS})).json()
            narrow = (await client.get(path, params={"start": LAST_MS})).json()
            periods = (time.monotonic() - begun) // PERIOD["coinbase"]
            asked = candle_requests(sandbox)

    assert narrow["candles"] == [row for row in wide["candles"] if row[0] >= LAST_MS]
    assert narrow["candles"] != []
    assert narrow["complete"] is True
    assert wide["settled_until"] == LAST_MS - 2 * MINUTE_MS
    assert asked <= 1 + periods
