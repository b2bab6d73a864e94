"""History starts: asked once, known for ever, and the probe's rows are stored."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from support.asking import answer_to
from support.sandbox import Sandbox, running_sandbox
from support.services import opened_services, serving
from support.waiting import eventually

from mdp_core.domain.clock import Clock, from_ms, to_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.settings import Settings
from scripts.sandbox.app import SandboxOptions

# Half a minute past midnight: yesterday's candle is closed and settled, today's is forming.
NOW = datetime(2026, 10, 7, 0, 0, 30, tzinfo=UTC)
MIDNIGHT = NOW - timedelta(seconds=30)
DAY = timedelta(days=1)
COIN = "ETH"

_COVERAGE = "SELECT interval, coverage::text FROM series WHERE coverage <> '{}' ORDER BY interval"
_BEGINNINGS = "SELECT interval, history_begins FROM series ORDER BY history_begins, interval"
_ROWS = """
SELECT time, open, high, low, close, volume, trades FROM candles
JOIN series ON series.id = series_id WHERE interval = '1d' ORDER BY time
"""


@pytest.fixture
def told(settings: Settings) -> Settings:
    """Settings whose clock stands at the exchange's."""
    return settings.model_copy(update={"clock": Clock.starting_at(NOW, speed=1e-6)})


def standing_sandbox(told: Settings) -> Any:  # noqa: ANN401 - a context manager
    return running_sandbox(SandboxOptions(clock=told.clock, limits=False))


def snapshots(sandbox: Sandbox) -> list[dict[str, Any]]:
    asked = [entry["params"] for entry in sandbox.requests() if "req" in entry["params"]]
    return [params["req"] for params in asked]


def probes(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [req for req in snapshots(sandbox) if req["startTime"] == 0]


def daily(sandbox: Sandbox) -> list[dict[str, Any]]:
    req = {"coin": COIN, "interval": "1d", "startTime": 0, "endTime": to_ms(NOW)}
    body = {"type": "candleSnapshot", "req": req}
    rows = sandbox.post("/hyperliquid/info", body)
    sandbox.clear()
    return rows


def traded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first = next(place for place, row in enumerate(rows) if row["n"])
    return rows[first:]


async def ask(client: httpx.AsyncClient, interval: str, **params: int) -> httpx.Response:
    answer = await client.get(f"/candles/hyperliquid/perp/{COIN}/{interval}", params=params)
    assert answer.status_code == 200, answer.text
    return answer


async def test_one_probe_tells_where_every_interval_begins_and_its_days_are_stored(
    told: Settings, database: psycopg.Connection
) -> None:
    """Many clients, several intervals, several services on one database: one question."""
    with standing_sandbox(told) as sandbox:
        truth = traded(daily(sandbox))[:-1]
        async with serving(told, sandbox) as client, serving(told, sandbox) as other:
            intervals = ["1h", "4h", "12h", "3d", "1w", "1d", "1h", "1w"]
            asks = [ask(item, name, limit=1) for name in intervals for item in (client, other)]
            await asyncio.gather(*asks)
            asked = probes(sandbox)
            sandbox.clear()
            days = (await ask(client, "1d", start=0)).json()
            for_days = snapshots(sandbox)
        async with serving(told, sandbox) as client:
            await ask(client, "8h", limit=1)
            after_restart = probes(sandbox)
    begins = from_ms(truth[0]["t"])

    assert [req["interval"] for req in asked] == ["1d"]
    assert for_days == after_restart == []
    assert days["candles"] == [[row["t"], *(float(row[key]) for key in "ohlcv")] for row in truth]
    assert [(entry[0], entry[6]) for entry in database.execute(_ROWS)] == [
        (from_ms(row["t"]), row["n"]) for row in truth
    ]
    coverage = dict(database.execute(_COVERAGE).fetchall())
    assert coverage["1d"].count(",") == 1
    history_starts = dict(database.execute(_BEGINNINGS).fetchall())
    assert history_starts["1d"] == begins
    assert begins - timedelta(weeks=1) < history_starts["1w"] <= begins
    assert begins - timedelta(days=3) < history_starts["3d"] <= begins
    for interval in ("12h", "8h", "4h", "1h"):
        assert begins <= history_starts[interval] < begins + DAY


async def test_forming_day_of_the_probe_is_not_stored(
    told: Settings, database: psycopg.Connection
) -> None:
    """Only final rows of the answer count: yesterday's, but not today's."""
    with standing_sandbox(told) as sandbox:
        assert from_ms(daily(sandbox)[-1]["t"]) == MIDNIGHT
        async with serving(told, sandbox) as client:
            await ask(client, "1h", limit=1)

    assert [row[0] for row in database.execute(_ROWS)][-1] == MIDNIGHT - DAY


@pytest.mark.parametrize(
    "fault", ["conflicting_rows", "off_grid", "ohlc_violation", "short_page", "out_of_order"]
)
async def test_spoilt_probe_stores_nothing_wrong_and_the_rest_comes_with_the_page(
    told: Settings, database: psycopg.Connection, fault: str
) -> None:
    """Days before the spoilt one are stored; the others are fetched on request."""
    with standing_sandbox(told) as sandbox:
        truth = traded(daily(sandbox))[:-1]
        sandbox.fault(fault, exchange="hyperliquid")
        async with serving(told, sandbox) as client:
            await ask(client, "1h", limit=1)
            stored = database.execute(_ROWS).fetchall()
            days = (await ask(client, "1d", start=0)).json()
    opens = [from_ms(row["t"]) for row in truth]

    assert 0 < len(stored) <= len(truth)
    assert (len(stored) == len(truth)) == (fault == "out_of_order")
    assert [row[0] for row in stored] == opens[: len(stored)]
    assert [row[0] for row in days["candles"]] == [row["t"] for row in truth]
    assert [row[0] for row in database.execute(_ROWS)] == opens


async def test_client_that_leaves_does_not_end_the_question_that_others_wait_for(
    settings: Settings, sandbox: Sandbox
) -> None:
    """The task is the service's: the first to ask goes, the second gets its answer."""
    query = CandleQuery("binance", "perp", "ADA-USDT", "1h", limit=1)
    async with opened_services(settings, sandbox) as services:
        await services.resolver.directory.refresh(
            services.resolver.directory.adapter("binance", "perp")
        )
        sandbox.settings(latency_ms=400)
        first = asyncio.create_task(answer_to(services, query))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(answer_to(services, query))
        await asyncio.sleep(0.1)
        first.cancel()
        answer = await second

    assert first.cancelled()
    assert len(answer.edge) + (answer.stored.end > answer.stored.start) >= 1
    assert len(sandbox.probes()) == 1


def _backfill() -> RequestContext:
    return RequestContext.at(Priority.BACKFILL)


# Enough for an interactive request, and seconds short of what a backfill leaves to others.
_SCARCE = "UPDATE rate_budgets SET tokens = 50, refilled_at = now() WHERE exchange = 'hyperliquid'"


@pytest.mark.parametrize("interval", ["1h", "4h", "1d"])
async def test_question_of_somebody_in_no_haste_is_hurried_by_who_waits_for_it(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection, interval: str
) -> None:
    """The same series, one that needs the same answer, or the one answering for both."""
    async with opened_services(settings, sandbox) as services:
        resolver = services.resolver
        await resolver.directory.refresh(resolver.directory.adapter("hyperliquid", "perp"))
        database.execute(_SCARCE)
        asking = resolver.series("hyperliquid", "perp", COIN, "1h", _backfill())
        idle = asyncio.create_task(asking)
        await asyncio.sleep(0.1)
        assert not probes(sandbox)
        series = await resolver.series("hyperliquid", "perp", COIN, interval)
        await idle

    assert series.history_start
    assert [req["interval"] for req in probes(sandbox)] == ["1d"]


async def test_question_that_another_process_keeps_is_not_waited_for_long(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """The other process has no tokens: the interactive request asks as well."""
    async with (
        opened_services(settings, sandbox) as backfill,
        opened_services(settings, sandbox) as services,
    ):
        await services.resolver.directory.refresh(
            services.resolver.directory.adapter("hyperliquid", "perp")
        )
        database.execute(_SCARCE)
        asking = backfill.resolver.series("hyperliquid", "perp", COIN, "1d", _backfill())
        idle = asyncio.create_task(asking)
        await asyncio.sleep(0.1)
        series = await services.resolver.series("hyperliquid", "perp", COIN, "1d")
        idle.cancel()

    assert series.history_start


async def test_series_that_has_not_begun_is_never_taken_for_an_empty_one(
    settings: Settings,
) -> None:
    """An answer from before the first candle is no answer for after it, in any cache."""
    listed = datetime(2023, 3, 23, 14, tzinfo=UTC)
    clock = Clock.starting_at(listed - timedelta(minutes=4), speed=40)
    told = settings.model_copy(update={"clock": clock})
    path = "/candles/binance/perp/ARB-USDT/1m"
    window = {"start": to_ms(listed), "end": to_ms(listed + timedelta(minutes=2))}
    day = {"start": to_ms(listed - DAY), "end": to_ms(listed - timedelta(hours=1))}
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        async with serving(told, sandbox) as client:
            before = await client.get(path, params=day)
            await eventually(lambda: clock() > listed + timedelta(minutes=4))
            after = {
                name: await client.get(path, params={**window, "format": name})
                for name in ("json", "csv")
            }

    assert (before.status_code, before.json()["count"]) == (200, 0)
    assert "ETag" not in before.headers
    assert before.json()["settled_until"] == day["start"]
    assert [row[0] for row in after["json"].json()["candles"]] == [
        window["start"],
        window["start"] + 60_000,
    ]
    assert after["csv"].text.count("\n") == 3
    assert "ETag" in after["json"].headers


async def test_failure_of_a_new_series_is_shared_by_all_that_wait(
    settings: Settings, sandbox: Sandbox
) -> None:
    """Eight requests cost what one costs, attempts included, and each is told why."""
    path, window = "/candles/binance/perp/ETH-USDT/5m", {"start": "2024-05-01", "limit": 1}
    asked: list[int] = []
    async with serving(settings, sandbox) as client:
        for callers in (1, 8):
            sandbox.fault("server_error", times=100)
            sandbox.clear()
            answers = await asyncio.gather(
                *(client.get(path, params=window) for _ in range(callers))
            )
            asked.append(len(sandbox.candle_requests()) + len(sandbox.probes()))
            sandbox.clear_faults()
            codes = {(answer.status_code, answer.json()["code"]) for answer in answers}
            assert codes == {(503, "upstream_unavailable")}
        assert (await client.get(path, params=window)).status_code == 200

    assert asked[0] == asked[1] > 0
