"""The nightly check: when it is due, what it counts, and that it changes nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
from support.asking import answer_to
from support.services import token_of

from mdp_core.domain.clock import Clock
from mdp_core.domain.queries import CandleQuery
from mdp_core.settings import Settings
from mdp_core.storage.jobs.job_runs import RunKey
from mdp_core.wiring import Services
from syncer.app import _first_run
from syncer.scheduled_jobs import nightly_check_of, scheduled_jobs

_SERIES = ("binance", "perp", "BTC-USDT", "1m")


async def test_differences_are_counted_and_left_alone(
    services: Services,
    client: httpx.AsyncClient,
    settings: Settings,
    database: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each candle of the newest page and an older one; an administrator sees sums."""
    await answer_to(services, CandleQuery(*_SERIES, limit=1200))
    database.execute("UPDATE candles SET close = high, volume = volume + 1")
    before = database.execute("SELECT * FROM candles ORDER BY time").fetchall()
    (adapter,) = services.resolver.directory.markets("binance", None)
    result = await nightly_check_of(services, adapter).run()
    key = RunKey("verify binance perp", datetime(2024, 5, 1, tzinfo=UTC))
    await services.runs.claim(key, "test")
    await services.runs.end(key, "test", result)
    health = (await client.get("/health")).json()
    headers = {"Authorization": f"Bearer {token_of(settings, 'meta:read')}"}
    public = (await client.get("/health", headers=headers)).json()

    assert 499 < result.rows <= 998
    assert (result.differing, result.error) == (result.rows, None)
    assert "mdp verify" in caplog.text
    assert database.execute("SELECT * FROM candles ORDER BY time").fetchall() == before
    counters = health["counters"]
    assert (counters["verified"], counters["differing"]) == (result.rows, result.rows)
    assert "counters" not in public


async def test_market_without_candles_is_no_error(services: Services) -> None:
    """There is nothing to compare."""
    (adapter,) = services.resolver.directory.markets("hyperliquid", None)
    result = await nightly_check_of(services, adapter).run()

    assert (result.rows, result.differing, result.error) == (0, 0, None)


async def test_check_is_due_at_three_by_the_clock_of_the_service(services: Services) -> None:
    """Neither at the start nor later if it was missed, whatever the clock is set to."""
    checks = [job for job in scheduled_jobs(services) if job.name.startswith("verify ")]
    assert len(checks) == 3
    now = datetime.now(UTC)
    shifted = Clock.starting_at(datetime(2021, 7, 1, 2, 59, tzinfo=UTC), 1.0)
    for job in checks:
        first = _first_run(job)
        assert now < first <= now + timedelta(days=1, seconds=job.jitter_seconds)
        assert services.settings.clock.at(first).strftime("%H:%M") == "03:00"
        soon = replace(job, schedule=replace(job.schedule, clock=shifted))
        assert timedelta(0) < _first_run(soon) - datetime.now(UTC) <= timedelta(minutes=1)
