"""Requests that wait for a silent exchange: so many in all, and of one subject."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import httpx
import pytest
from support.http import connected
from support.sandbox import Sandbox
from support.services import app_of, opened_services
from support.waiting import eventually

from api.tokens import SCOPES, issue_token
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h")


@pytest.fixture
async def services(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[Services]:
    """Services with four places for each exchange, two of them for one subject."""
    few = settings.model_copy(update={"max_waiting": 4, "subject_waiting": 1})
    async with opened_services(few, sandbox) as opened:
        yield opened


@pytest.fixture
def adapter(services: Services) -> ExchangeAdapter:
    """The exchange that falls silent."""
    (found,) = services.resolver.directory.markets("binance", None)
    return found


async def test_never_asked_series_wait_in_bounded_number(
    services: Services, sandbox: Sandbox, adapter: ExchangeAdapter
) -> None:
    """429 for a subject with many, 503 once all places are taken; hits are served."""
    app = app_of(services)
    async with (
        connected(app, _token(services, "ann")) as ann,
        connected(app, _token(services, "bob")) as bob,
    ):
        stored = {"start": "2024-05-01", "end": "2024-05-01T01:00"}
        assert (await ann.get(_path("12h"), params=stored)).status_code == 200
        sandbox.fault("hang", times=1_000)
        waiting = [asyncio.create_task(_asked(ann, interval)) for interval in _INTERVALS[:2]]
        await eventually(lambda: adapter.room.waiting == 2)
        too_many = await _asked(ann, "5m")
        waiting += [asyncio.create_task(_asked(bob, interval)) for interval in _INTERVALS[2:4]]
        await eventually(lambda: adapter.room.waiting == 4)
        overloaded = [await _asked(client, "1h") for client in (ann, bob)]
        hit = await ann.get(_path("12h"), params=stored)
        health = await ann.get("/health")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        sandbox.clear()

    assert (too_many.status_code, too_many.json()["code"]) == (429, "quota_exceeded")
    assert int(too_many.headers["Retry-After"]) >= 1
    assert {(answer.status_code, answer.json()["code"]) for answer in overloaded} == {
        (503, "overloaded")
    }
    assert (hit.status_code, hit.headers["X-Cache"]) == (200, "hit")
    assert health.json()["counters"]["waiting"] == 4
    assert adapter.room.waiting == 0


def _token(services: Services, subject: str) -> str:
    return issue_token(services.settings, subject, frozenset(SCOPES), timedelta(hours=1))


def _path(interval: str) -> str:
    return f"/candles/binance/perp/ETH-USDT/{interval}"


async def _asked(client: httpx.AsyncClient, interval: str) -> httpx.Response:
    return await client.get(_path(interval), params={"limit": 1})
