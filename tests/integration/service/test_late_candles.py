"""Candles that are published late, on every exchange: found, at no other cost."""

from datetime import datetime, timedelta

import httpx
import psycopg
import pytest
from support.clocks import advance
from support.http import connected
from support.sandbox import MINUTE_MS
from support.services import app_of, opened_services, token_of
from support.standing import BUSY, NOON, NOON_MS, Standing, minutes, open_times, standing

from mdp_core.domain.clock import from_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.service.mending import Mender
from mdp_core.service.repair import Repair
from mdp_core.service.stored_pages import PageComparer
from mdp_core.settings import Settings

_LATE = NOON_MS - MINUTE_MS
"""The slot whose candle is late: it closed half a minute ago."""
_WINDOW = {"start": _LATE - 10 * MINUTE_MS, "end": _LATE + MINUTE_MS}
# Hyperliquid remembers three days of minutes.
_LAST_MONTH_MS = {"binance": 30 * 1440, "coinbase": 30 * 1440, "hyperliquid": 2 * 1440}
_CLOSED = from_ms(NOON_MS)
_DUE = "SELECT min(next_due_at) FROM absences"
_FORGET = "DELETE FROM candles WHERE time < %s"
_DAY_AGO = NOON - timedelta(days=1)


@pytest.mark.parametrize(
    ("exchange", "seconds"),
    [("binance", 90), ("binance", 150), ("binance", 7200), ("hyperliquid", 7200)],
)
async def test_candle_that_is_late_beyond_the_grace_is_found_by_the_next_recheck(
    settings: Settings, database: psycopg.Connection, exchange: str, seconds: int
) -> None:
    """Its window has a new version then; other months keep their tags and blocks."""
    async with standing(settings) as stage:
        before = await _last_month(stage, exchange)
        grace = stage.adapter(exchange).facts.absence_grace_seconds
        _withhold(stage, exchange, grace + 10)
        doubted = await stage.candles(exchange, **_WINDOW)
        asked_in_vain = await _recheck_until(stage, database, exchange, seconds)
        found = await stage.recheck(exchange)
        healed = await stage.candles(exchange, **_WINDOW)
        database.execute(_FORGET, [_DAY_AGO])  # rows come from memory
        after = await _last_month(stage, exchange)

    assert doubted.json()["unconfirmed"] == [{"start": _LATE, "end": _LATE + MINUTE_MS}]
    assert "ETag" not in doubted.headers
    assert asked_in_vain == {90: 0, 150: 2, 7200: 5}[seconds]
    assert found == 1
    assert open_times(healed) == minutes(**_WINDOW)
    assert _version(healed) > _version(doubted)
    assert "ETag" in healed.headers
    assert after.headers["ETag"] == before.headers["ETag"]
    assert (after.content, after.headers["X-Cache"]) == (before.content, "hit")


@pytest.mark.parametrize("exchange", ["hyperliquid", "coinbase"])
@pytest.mark.parametrize("seconds", [90, 150])
async def test_candle_that_is_late_within_the_grace_is_awaited(
    settings: Settings, exchange: str, seconds: int
) -> None:
    """Coverage ends before it: told as not settled, asked for at the next request."""
    async with standing(settings) as stage:
        before = await _last_month(stage, exchange)
        _withhold(stage, exchange, seconds - 10)
        awaited = await stage.candles(exchange, **_WINDOW)
        stage.sandbox.clear_faults()
        advance(stage.clock, 10)
        async with (  # a process that remembers no provisional candles
            opened_services(stage.services.settings, stage.sandbox) as services,
            connected(app_of(services), token_of(settings)) as client,
        ):
            got = await client.get(f"/candles/{BUSY[exchange]}", params=_WINDOW)
        after = await _last_month(stage, exchange)

    assert open_times(awaited) == minutes(_WINDOW["start"], _LATE)
    assert awaited.json()["settled_until"] <= _LATE
    assert "ETag" not in awaited.headers
    assert open_times(got) == minutes(**_WINDOW)
    assert got.json()["settled_until"] == _WINDOW["end"]
    assert after.headers["ETag"] == before.headers["ETag"]


async def test_absence_between_two_rows_of_a_sparse_market_is_a_fact_until_it_is_verified(
    settings: Settings, database: psycopg.Connection
) -> None:
    """Coinbase, two hours late: no trade, by its own rule. A check finds the candle."""
    async with standing(settings) as stage:
        before = await _last_month(stage, "coinbase")
        _withhold(stage, "coinbase", 610)
        believed = await stage.candles("coinbase", **_WINDOW)
        absences = database.execute(_DUE).fetchone()
        stage.sandbox.clear_faults()
        advance(stage.clock, 7200)
        name, market, symbol, interval = BUSY["coinbase"].split("/")
        query = CandleQuery(name, market, symbol, interval)
        await Repair(
            PageComparer(stage.services.store, stage.services.resolver, stage.services.markets),
            Mender(stage.services.store, pause_seconds=0),
        ).repair(query)
        healed = await stage.candles("coinbase", **_WINDOW)
        after = await _last_month(stage, "coinbase")

    assert open_times(believed) == minutes(_WINDOW["start"], _LATE)
    assert absences == (None,)
    assert open_times(healed) == minutes(**_WINDOW)
    assert healed.headers["ETag"] != believed.headers["ETag"]
    assert after.headers["ETag"] == before.headers["ETag"]


async def _last_month(stage: Standing, exchange: str) -> httpx.Response:
    end = NOON_MS - _LAST_MONTH_MS[exchange] * MINUTE_MS
    return await stage.candles(exchange, start=end - 300 * MINUTE_MS, end=end)


def _withhold(stage: Standing, exchange: str, age: float) -> None:
    """Have the candle be late, and let it be closed for so many seconds."""
    stage.sandbox.fault("late_candle", exchange=exchange, slot=_LATE, seconds=3600)
    advance(stage.clock, age - (stage.clock() - _CLOSED).total_seconds())


async def _recheck_until(
    stage: Standing, database: psycopg.Connection, exchange: str, seconds: int
) -> int:
    """Do all rechecks due before the candle comes; return how many were in vain.

    Then let the next one be due.
    """
    done = 0
    while (due := _due(database)) < _CLOSED + timedelta(seconds=seconds):
        _move_to(stage, due)
        assert await stage.recheck(exchange) == 0
        done += 1
    stage.sandbox.clear_faults()
    _move_to(stage, due)
    return done


def _move_to(stage: Standing, due: datetime) -> None:
    advance(stage.clock, (due - stage.clock()).total_seconds() + 0.01)


def _due(database: psycopg.Connection) -> datetime:
    row = database.execute(_DUE).fetchone()
    assert row
    return row[0]


def _version(answer: httpx.Response) -> int:
    return int(answer.headers["X-Version"].split(".")[2])
