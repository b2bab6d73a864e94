"""`/health`: who may see what of it, and what it says when something stands still."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
import stamina
from fastapi import FastAPI
from support.frozen import frozen_server
from support.http import connected
from support.sandbox import Sandbox
from support.services import token_of
from support.standing import BUSY, NOON, standing

from mdp_core.settings import Settings
from mdp_core.wiring import Services

_DETAILS = {"exchanges", "syncers", "runs", "counters"}


async def test_frozen_database_is_unavailable_and_ends_no_process(
    client: httpx.AsyncClient, database_url: str
) -> None:
    """503 for all that ask, 200 for liveness; 200 again when the database goes on."""
    assert (await client.get("/health")).status_code == 200
    with frozen_server(database_url):
        await _until(client, 503)
        asked = await asyncio.gather(*(client.get("/health") for _ in range(8)))
        live = await client.get("/health/live")
    await _until(client, 200)

    assert {answer.status_code for answer in asked} == {503}
    assert {answer.json()["database"]["reachable"] for answer in asked} == {False}
    assert (live.status_code, live.json()) == (200, {"status": "ok"})


async def test_answer_is_shared_by_all_that_ask_within_a_second(
    services: Services, client: httpx.AsyncClient
) -> None:
    """However many ask, the database is asked a few times."""
    for _ in range(10):
        await asyncio.gather(*(client.get("/health") for _ in range(4)))

    assert services.database.pool_stats()["requests_num"] < 5 * 10


@pytest.mark.parametrize("scopes", [("candles:read",), ("backfill:write", "meta:read")])
async def test_details_are_for_administrators(
    app: FastAPI, settings: Settings, scopes: tuple[str, ...]
) -> None:
    """No other scope, a token that is none, and no token see the database only."""
    tokens = [token_of(settings, *scopes), "none", None, token_of(settings, "admin")]
    seen: list[set[str]] = []
    for token in tokens:
        async with connected(app, token) as client:
            seen.append(set((await client.get("/health")).json()) - {"status", "database"})

    assert seen == [set(), set(), set(), _DETAILS]


async def test_exchange_is_described_as_it_was_last_met(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Not reachable, in the error's words, after a failure; clocks as last read."""
    path = f"/candles/{BUSY['binance']}"
    assert (await client.get(path, params={"limit": 1})).status_code == 200
    sandbox.fault("server_error")
    with stamina.set_testing(True, attempts=1):
        failed = await client.get(path, params={"start": "2024-05-01", "limit": 1})
    health = (await client.get("/health")).json()["exchanges"]

    assert failed.status_code == 503
    assert health["binance"]["reachable"] is False
    assert "HTTP 500" in health["binance"]["last_error"]
    assert isinstance(health["binance"]["clock_offset_ms"], int)
    assert health["coinbase"]["reachable"] is None


async def test_hits_and_misses_are_counted(client: httpx.AsyncClient) -> None:
    """Each answer once; pages as they were fetched."""
    path = f"/candles/{BUSY['binance']}"
    for _ in range(3):
        await client.get(path, params={"start": "2024-05-01", "end": "2024-05-01T01:00"})
    counters = (await client.get("/health")).json()["counters"]

    assert (counters["hits"], counters["misses"], counters["pages"]) == (2, 1, 1)


async def test_kept_series_is_named_before_its_candles_are_forgotten(settings: Settings) -> None:
    """Once half of the exchange's memory is missing: the first such candle."""
    keep = settings.model_copy(update={"keep": "hyperliquid:BTC*:1m"})
    async with standing(keep, NOON) as world:
        await world.candles("hyperliquid", limit=4_990)
        soon = await _expiring(world.client)
    async with standing(keep, NOON + timedelta(hours=62)) as world:
        late = await _expiring(world.client)
    other = settings.model_copy(update={"keep": "hyperliquid:ETH-USDC:1m"})
    async with standing(other, NOON + timedelta(hours=62)) as world:
        of_others = await _expiring(world.client)

    (named,) = late
    assert soon == []
    assert of_others == []
    assert (named["symbol"], named["interval"]) == ("BTC-USDC", "1m")
    assert named["lost_at"] - named["first_missing"] == 5000 * 60_000


async def _expiring(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await client.get("/health")
    return answer.json()["exchanges"]["hyperliquid"]["expiring"]


async def _until(client: httpx.AsyncClient, status: int) -> None:
    """Ask until health has this status: an answer is told for a second."""
    while (await client.get("/health")).status_code != status:  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.05)
