"""Fill jobs over HTTP: asked for, estimated, worked on, followed, cancelled."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from support.asking import answer_to
from support.http import connected
from support.sandbox import MINUTE_MS, Sandbox
from support.services import app_of, opened_services, token_of
from support.waiting import eventually

from mdp_core.backfill.chunks import oldest_first
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.windows import Window
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.selection import SeriesName
from mdp_core.settings import Settings
from mdp_core.storage.jobs.job_runs import RunKey, RunResult
from mdp_core.wiring import Services
from syncer.app import running_syncer

PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
PATH = "/candles/binance/perp/ETH-USDT/1m"
PAGES = 30
WINDOW = {"start": START_MS, "end": START_MS + PAGES * PAGE_MS}
PATIENCE_SECONDS = 60
_GONE = """
WITH gone AS (
    INSERT INTO symbols (exchange, market_type, name, native, base, quote, multiplier, active)
    VALUES ('binance', 'perp', 'GONE-USDT', 'GONEUSDT', 'GONE', 'USDT', 1, false) RETURNING id
)
INSERT INTO series (symbol_id, interval, history_begins) SELECT id, '1m', '2020-01-01' FROM gone
"""
OPEN = ("queued", "running")


@pytest.fixture
async def services(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[Services]:
    """Services whose requests fetch no more than ten pages."""
    bounded = settings.model_copy(update={"max_pages": 10})
    async with opened_services(bounded, sandbox) as opened:
        yield opened


@pytest.fixture
async def client(services: Services) -> AsyncGenerator[httpx.AsyncClient]:
    async with connected(app_of(services), token_of(services.settings)) as connected_client:
        yield connected_client


async def _another_is_done(client: httpx.AsyncClient) -> None:
    """Have the worker go on to a job of another exchange, and end it."""
    asked = {"exchange": "coinbase", "symbols": ["BTC-USD"], "intervals": ["1d"]}
    window = {"start": "2024-05-01", "end": "2024-05-03"}
    posted = (await client.post("/backfills", json={**asked, **window})).json()
    assert (await ended(client, posted["jobs"][0]["status_url"]))["state"] == "done"


async def ended(client: httpx.AsyncClient, status_url: str) -> dict[str, Any]:
    """Follow a job to its end."""
    while (job := (await client.get(status_url)).json())["state"] in OPEN:  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.05)
    return job


def job_request(**changes: object) -> dict[str, object]:
    """Describe the window of the tests for POST."""
    wanted = {"exchange": "binance", "market_type": "perp", "symbols": ["ETH-USDT"]}
    return {**wanted, "intervals": ["1m"], **WINDOW, **changes}


async def test_large_cold_window_becomes_a_job_and_then_an_answer(
    services: Services, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """202 with an estimate that comes true; after the job the same request gets 200."""
    async with running_syncer(services):
        accepted = await client.get(PATH, params=WINDOW)
        again = await client.get(PATH, params=WINDOW)
        job = await ended(client, accepted.json()["status_url"])
    answer = await client.get(PATH, params=WINDOW)
    body = accepted.json()

    assert accepted.status_code == 202
    assert int(accepted.headers["Retry-After"]) >= 1
    assert again.json()["job"] == body["job"]
    assert set(body) >= {"job", "status_url", "estimate"}
    assert body["estimate"]["candles"] == PAGES * 499
    assert (body["estimate"]["pages"], body["estimate"]["weight"]) == (PAGES, 2.0 * PAGES)
    assert body["estimate"]["cached_share"] == 0
    assert (job["state"], job["error"], job["missing"]) == ("done", None, [])
    whole = {"slots": PAGES * 499, "covered": PAGES * 499, "unconfirmed": 0, "share": 1.0}
    assert job["progress"] == whole
    assert len(sandbox.candle_requests()) == PAGES
    assert (answer.status_code, answer.headers["X-Cache"]) == (200, "hit")
    assert answer.json()["count"] == PAGES * 499


async def test_without_a_syncer_nobody_is_promised_anything(client: httpx.AsyncClient) -> None:
    """503 says so, for both ways to ask for a job; an estimate can be had anyway."""
    asked = await client.get(PATH, params=WINDOW)
    posted = await client.post("/backfills", json=job_request())
    estimated = await client.post("/backfills", json=job_request(dry_run=True))

    assert (asked.status_code, asked.json()["code"]) == (503, "syncer_unavailable")
    assert int(asked.headers["Retry-After"]) > 0
    assert (posted.status_code, posted.json()["code"]) == (503, "syncer_unavailable")
    assert estimated.status_code == 200
    assert estimated.json()["estimate"]["pages"] == PAGES
    assert (await client.get("/backfills")).json() == {"backfills": [], "next": None}


async def test_health_tells_who_lives(services: Services, client: httpx.AsyncClient) -> None:
    """The heartbeat while a syncer runs, without its machine; none after it stopped."""
    async with running_syncer(services) as name:
        answer = await client.get("/health")
        alive = answer.json()["syncers"]
    while (await client.get("/health")).json()["syncers"]:  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.05)

    assert [(line["name"], line["alive"]) for line in alive] == [(name.partition(":")[2], True)]
    assert socket.gethostname() not in answer.text


async def test_health_counts_who_waits_while_the_next_run_is_under_way(
    services: Services, client: httpx.AsyncClient
) -> None:
    """By the newest run of each market that has ended so far as to know."""
    due = services.settings.clock()
    for minutes, result in ((2, RunResult(1, 100)), (1, RunResult(error="some")), (0, None)):
        for job in ("warm one", "warm two"):
            key = RunKey(job, due - timedelta(minutes=minutes))
            await services.runs.claim(key, "host:1:a")
            if result:
                await services.runs.end(key, "host:1:a", result)

    assert (await client.get("/health")).json()["counters"]["series_waiting"] == 200


@pytest.fixture
async def idle(services: Services) -> AsyncGenerator[None]:
    """Have a syncer count as alive that does no work."""
    await services.runs.live("idle")
    yield
    await services.runs.leave("idle")


@pytest.mark.usefixtures("idle")
async def test_same_window_twice_is_one_job(client: httpx.AsyncClient) -> None:
    """At once or one after the other, it is one job; another window is another."""
    one, two = await asyncio.gather(
        *(client.post("/backfills", json=job_request()) for _ in range(2))
    )
    other = await client.post("/backfills", json=job_request(start=START_MS - PAGE_MS))
    ids = [answer.json()["jobs"][0]["job"] for answer in (one, two, other)]

    assert one.status_code == 202
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.usefixtures("idle")
async def test_job_for_less_than_was_asked_for_is_another(client: httpx.AsyncClient) -> None:
    """One candle less is less; a job that fills more does."""
    end = WINDOW["end"]
    ends = [end, end + MINUTE_MS, end - MINUTE_MS]
    answers = [await client.post("/backfills", json=job_request(end=end)) for end in ends]
    ids = [answer.json()["jobs"][0]["job"] for answer in answers]

    assert ids[0] == ids[2] != ids[1]


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(("minutes", "is_same"), [(50, True), (70, False)])
async def test_asking_again_until_now_is_the_same_job_for_an_hour(
    services: Services, client: httpx.AsyncClient, minutes: int, *, is_same: bool
) -> None:
    """An end in the future means now, like no end."""
    until_now = job_request(end=None)
    (planned,) = (await client.post("/backfills", json={**until_now, "dry_run": True})).json()[
        "jobs"
    ]
    series = await services.resolver.series("binance", "perp", "ETH-USDT", "1m")
    before = from_ms(planned["end"] - minutes * MINUTE_MS)
    made = await services.jobs.get_or_create(
        series.id, Window(from_ms(START_MS), before), timedelta(0)
    )
    later = job_request(end=planned["end"] + 10 * MINUTE_MS)
    answers = [await client.post("/backfills", json=asked) for asked in (until_now, later)]
    ids = [answer.json()["jobs"][0]["job"] for answer in answers]

    assert ids[0] == ids[1]
    assert (ids[0] == made) is is_same


async def test_job_that_is_cancelled_while_it_runs_stops_soon(
    services: Services, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """Pages under way are kept, and none of the rest is requested."""
    sandbox.settings(latency_ms=100)
    async with running_syncer(services):
        posted = await client.post("/backfills", json=job_request(end=START_MS + 300 * PAGE_MS))
        url = posted.json()["jobs"][0]["status_url"]
        await eventually(lambda: len(sandbox.candle_requests()) > PAGES)
        cancelled = (await client.delete(url)).json()
        await _another_is_done(client)

        assert cancelled["state"] == "cancelled"
        assert len(sandbox.candle_requests()) < 3 * PAGES
    assert (await client.get(url)).json()["progress"]["covered"] > 0


@pytest.mark.usefixtures("idle")
async def test_jobs_of_many_series_are_listed_and_paged(client: httpx.AsyncClient) -> None:
    """One job for each symbol and interval that globs match; the newest first."""
    wanted = job_request(symbols=["ETH-USDT", "1000*SHIB*"], intervals=["1m", "1h"])
    posted = (await client.post("/backfills", json=wanted)).json()
    first = (await client.get("/backfills", params={"limit": 3})).json()
    second = (await client.get(first["next"])).json()
    listed = [job["job"] for job in first["backfills"] + second["backfills"]]

    assert {(job["symbol"], job["interval"]) for job in posted["jobs"]} == {
        (symbol, interval) for symbol in ("ETH-USDT", "1000SHIB-USDT") for interval in ("1m", "1h")
    }
    assert listed == sorted((job["job"] for job in posted["jobs"]), reverse=True)
    assert {job["state"] for job in first["backfills"]} == {"queued"}
    small_first = sorted(first["backfills"], key=lambda job: job["estimate"]["candles"])
    ahead = [job["estimate"]["eta_s"] for job in small_first]
    assert ahead == sorted(ahead)


@pytest.mark.usefixtures("idle")
async def test_cancelled_job_is_left_alone(
    services: Services, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """DELETE ends it before anything is asked; a job that has ended stays as it is."""
    job = (await client.post("/backfills", json=job_request())).json()["jobs"][0]
    cancelled = await client.delete(job["status_url"])
    sandbox.clear()
    async with running_syncer(services):
        await _another_is_done(client)
    again = (await client.delete(job["status_url"])).json()

    assert cancelled.json()["state"] == again["state"] == "cancelled"
    assert sandbox.candle_requests() == []


async def test_what_can_not_be_had_does_not_hold_a_job_up(
    services: Services, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """A wrong row costs its slot: the job ends, names it, and all the rest is there."""
    bad = START_MS + 3 * PAGE_MS
    sandbox.fault("ohlc_violation", times=1000, startTime=str(bad))
    async with running_syncer(services):
        posted = await client.post("/backfills", json=job_request())
        job = await ended(client, posted.json()["jobs"][0]["status_url"])

    assert job["state"] == "failed"
    assert "could not be had" in job["error"]
    assert len(job["missing"]) == 1
    assert bad <= job["missing"][0]["start"] < bad + PAGE_MS
    assert job["missing"][0]["end"] - job["missing"][0]["start"] == MINUTE_MS
    assert job["missing"][0]["reason"] == "upstream_bad_data"
    assert job["missing"][0]["detail"] in job["error"]
    assert job["progress"]["covered"] == PAGES * 499 - 1


async def test_series_that_the_exchange_refuses_is_given_up_soon(
    services: Services, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """A market that is gone: the job fails with its words, after a few chunks of many."""
    await services.resolver.directory.refresh(
        services.resolver.directory.adapter("binance", "perp")
    )
    async with services.database.connection() as connection:
        await connection.execute(_GONE)
    long = job_request(symbols=["GONE-USDT"], end=START_MS + 200 * PAGE_MS)
    async with running_syncer(services):
        posted = await client.post("/backfills", json=long)
        job = await ended(client, posted.json()["jobs"][0]["status_url"])

    assert job["state"] == "failed"
    assert "Invalid symbol" in job["error"]
    assert len(sandbox.candle_requests()) < 100


async def test_what_the_exchange_forgot_is_named_and_holds_nobody_up(
    services: Services, client: httpx.AsyncClient
) -> None:
    """Hyperliquid: 5,000 candles come and the job is done; older ones are told apart."""
    wanted = {"exchange": "hyperliquid", "symbols": ["ETH"], "intervals": ["1h"]}
    estimated = (await client.post("/backfills", json={**wanted, "dry_run": True})).json()
    async with running_syncer(services):
        posted = (await client.post("/backfills", json=wanted)).json()
        job = await ended(client, posted["jobs"][0]["status_url"])
    (forgotten,) = job["beyond_memory"]

    assert estimated["jobs"][0]["beyond_memory"] == posted["jobs"][0]["beyond_memory"]
    assert (job["state"], job["error"], job["missing"]) == ("done", None, [])
    assert forgotten == estimated["jobs"][0]["beyond_memory"][0]
    assert forgotten["start"] == job["start"]
    assert 4980 <= job["progress"]["slots"] == job["progress"]["covered"] <= 5000


async def test_job_for_a_coin_that_is_traded_no_more_comes_to_its_end(
    services: Services, client: httpx.AsyncClient
) -> None:
    """Nothing comes where memory ends, however often it is asked."""
    wanted = {"exchange": "hyperliquid", "symbols": ["MATIC"], "intervals": ["15m"]}
    async with running_syncer(services):
        posted = (await client.post("/backfills", json=wanted)).json()
        job = await ended(client, posted["jobs"][0]["status_url"])

    assert (job["state"], job["error"], job["missing"]) == ("done", None, [])
    assert job["beyond_memory"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (job_request(exchange="nowhere"), 404, "unknown_exchange"),
        (job_request(symbols=["NOPE-USDT"]), 404, "unknown_symbol"),
        (job_request(symbols=["NOPE*"]), 404, "unknown_symbol"),
        (job_request(intervals=["7m"]), 404, "unsupported_interval"),
        (job_request(start=WINDOW["end"], end=WINDOW["start"]), 422, "invalid_window"),
        (job_request(symbols=[]), 422, "invalid_parameter"),
        (job_request(start="soon"), 422, "invalid_parameter"),
    ],
)
async def test_request_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, body: dict[str, object], status: int, code: str
) -> None:
    """With the same codes as everywhere."""
    answer = await client.post("/backfills", json=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_patterns_are_bounded_and_counted_once(client: httpx.AsyncClient) -> None:
    """A hundred at the most; the same one again is the same."""
    many = [f"A{number}*" for number in range(101)]
    refused = await client.post("/backfills", json=job_request(symbols=many, dry_run=True))
    again = await client.post(
        "/backfills", json=job_request(symbols=["ETH-USDT", "ETH-USDT*"] * 50, dry_run=True)
    )

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    assert "100" in refused.json()["detail"]
    assert len(again.json()["jobs"]) == 1


async def test_job_that_is_not_there(client: httpx.AsyncClient) -> None:
    """404, to see and to cancel."""
    for answer in (await client.get("/backfills/9"), await client.delete("/backfills/9")):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_scopes_are_needed(services: Services) -> None:
    """A reader of candles sees and cancels its jobs, and makes none for many series."""
    token = token_of(services.settings, "candles:read")
    async with connected(app_of(services), token) as reader:
        assert (await reader.get("/backfills")).status_code == 200
        assert (await reader.post("/backfills", json=job_request())).status_code == 403
        assert (await reader.delete("/backfills/1")).status_code == 404
    token = token_of(services.settings, "meta:read")
    async with connected(app_of(services), token) as stranger:
        assert (await stranger.delete("/backfills/1")).status_code == 403


HOUR_MS = 60 * MINUTE_MS


@pytest.mark.parametrize("exchange", ["binance", "coinbase", "hyperliquid"])
async def test_dry_run_tells_what_is_then_spent(
    services: Services, sandbox: Sandbox, exchange: str
) -> None:
    """Requests and weight of the candles asked for later, with some stored already."""
    market, symbol = {
        "binance": ("perp", "ETH-USDT"),
        "coinbase": ("spot", "BTC-USD"),
        "hyperliquid": ("perp", "BTC-USDC"),
    }[exchange]
    now_ms = to_ms(services.settings.clock())
    start, end = from_ms(now_ms - 4000 * HOUR_MS), from_ms(now_ms - 30 * HOUR_MS)
    some = CandleQuery(
        exchange, market, symbol, "1h", start=from_ms(now_ms - 2000 * HOUR_MS), limit=50
    )
    await answer_to(services, some)
    name = SeriesName(exchange, market, symbol, "1h")
    (planned,) = (await services.planning.plan([name], start, end)).planned
    sandbox.clear()
    series, window = planned.series, planned.window
    async for step in services.bulk.steps(series, window, oldest_first, Priority.BACKFILL):
        assert (step.delay, step.lost) == (None, [])
    slots = [found for entry in sandbox.requests() if (found := _slots(entry))]
    weigh = services.markets[exchange, market].adapter.facts.tariff.weigh
    estimate = planned.outlook.estimate

    assert 3 < estimate.pages < 30
    assert estimate.requests == len(slots)
    assert estimate.weight == sum(map(weigh, slots))
    assert 0 < estimate.cached_share < 1
    assert (await services.bulk.outlook(series, window)).estimate.candles == 0


def _slots(entry: dict[str, Any]) -> int | None:
    """Tell the hours of candles a request asked for, if any; ends are inclusive."""
    params = entry["params"].get("req", entry["params"])
    if "startTime" in params:
        return (int(params["endTime"]) + 1 - int(params["startTime"])) // HOUR_MS
    if "granularity" in params:
        bounds = [datetime.fromisoformat(params[name]) for name in ("start", "end")]
        return (bounds[1] - bounds[0]) // timedelta(hours=1) + 1
    return None
