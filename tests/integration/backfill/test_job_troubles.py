"""Fill jobs that go wrong: each is told as it is, and holds up none of the others."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from support.http import connected
from support.sandbox import MINUTE_MS, Sandbox, running_sandbox
from support.services import app_of, opened_services, token_of

from mdp_core.backfill.chunks import oldest_first
from mdp_core.domain.clock import Clock, to_ms
from mdp_core.domain.windows import Window
from mdp_core.exchanges.clock import EARLIEST
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.selection import SeriesName
from mdp_core.settings import ExchangeSettings, Settings
from mdp_core.wiring import Services, open_services
from scripts.sandbox.app import SandboxOptions
from syncer.app import running_syncer

PATIENCE_SECONDS = 60
PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
OPEN = ("queued", "running")


def job_request(symbol: str = "ETH-USDT", **changes: object) -> dict[str, object]:
    """Describe two pages of a series of Binance for POST."""
    wanted = {"exchange": "binance", "market_type": "perp", "symbols": [symbol]}
    bounds = {"start": START_MS, "end": START_MS + 2 * PAGE_MS}
    return {**wanted, "intervals": ["1m"], **bounds, **changes}


async def posted(client: httpx.AsyncClient, **changes: object) -> dict[str, Any]:
    """Ask for a job; give it."""
    answer = await client.post("/backfills", json=job_request(**changes))  # type: ignore[arg-type]
    return answer.raise_for_status().json()["jobs"][0]


async def ended(client: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    """Follow a job to its end."""
    while (now := (await client.get(job["status_url"])).json())["state"] in OPEN:  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.05)
    return now


@pytest.fixture
async def idle(services: Services) -> AsyncGenerator[None]:
    """Have a syncer count as alive that does no work."""
    await services.runs.live("idle")
    yield
    await services.runs.leave("idle")


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    "bounds",
    [
        {"start": "2024-01-01T12:00:10Z", "end": "2024-01-01T12:00:50Z"},
        {"start": "2024-01-01", "end": "2024-01-01"},
        {"start": "2100-01-01", "end": None},
        {"start": "now", "end": None},
    ],
    ids=["between two candles", "nothing", "in the future", "just now"],
)
async def test_window_without_a_closed_candle_is_refused(
    client: httpx.AsyncClient, bounds: dict[str, object]
) -> None:
    """As often as asked for, and for a dry run too; later requests come after it."""
    now = {"start": to_ms(Clock()())} if bounds["start"] == "now" else {}
    asked = job_request(**{**bounds, **now})  # type: ignore[arg-type]
    answers = [
        await client.post("/backfills", json={**asked, "dry_run": dry_run})
        for dry_run in (True, False, False)
    ]
    good = await client.post("/backfills", json=job_request())

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {
        (422, "invalid_window")
    }
    assert good.status_code == 202
    assert len((await client.get("/backfills")).json()["backfills"]) == 1


def test_database_refuses_a_job_without_a_window(
    database: psycopg.Connection, services: Services
) -> None:
    """Whatever the code does: such a row could be neither listed nor worked on."""
    del services
    with pytest.raises(psycopg.errors.CheckViolation, match="ck_backfills_span"):
        database.execute(
            "WITH x AS (INSERT INTO exchanges VALUES ('x', 'X') RETURNING code), "
            "s AS (INSERT INTO symbols (exchange, market_type, name, native, base, quote, "
            "multiplier, active) SELECT code, 'perp', 'A-B', 'AB', 'A', 'B', 1, true FROM x "
            "RETURNING id), one AS (INSERT INTO series (symbol_id, interval) SELECT id, '1m' "
            "FROM s RETURNING id) INSERT INTO backfills (series_id, span) SELECT id, 'empty' "
            "FROM one"
        )


async def test_job_that_is_not_understood_fails_and_the_next_goes_on(
    services: Services, client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """Candles outside coverage, as after a clumsy restore: an unforeseen mistake."""
    async with running_syncer(services):
        first = await ended(client, await posted(client))
        database.execute("UPDATE series SET coverage = '{}'")
        broken = await ended(client, await posted(client))
        other = await ended(client, await posted(client, symbol="BTC-USDT"))

    assert [item["state"] for item in (first, broken, other)] == ["done", "failed", "done"]
    assert "UniqueViolation" in broken["error"]


async def test_job_that_can_not_go_on_lets_others_go_first(
    services: Services, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """The exchange fails for one symbol only: the job behind it is done meanwhile."""
    jobs = [await _made(services, client, symbol) for symbol in ("ETH-USDT", "BTC-USDT")]
    sandbox.fault("server_error", times=100_000, symbol="ETHUSDT")
    async with running_syncer(services):
        other = await ended(client, jobs[1])
        stuck = (await client.get(jobs[0]["status_url"])).json()
        sandbox.clear_faults()
        later = await ended(client, jobs[0])

    assert (other["state"], stuck["state"], later["state"]) == ("done", "running", "done")


async def _made(services: Services, client: httpx.AsyncClient, symbol: str) -> dict[str, Any]:
    await services.runs.live("idle")
    job = await posted(client, symbol=symbol)
    await services.runs.leave("idle")
    return job


async def test_jobs_are_told_and_cancelled_while_the_exchange_is_away(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """By a process that never reached it; of a vanished series all but progress."""
    async with _client_of(settings, sandbox.url) as client:
        jobs = [await posted(client), await posted(client, symbol="BTC-USDT", end=None)]
        strange = await posted(client, symbol="SOL-USDT")
        database.execute("UPDATE symbols SET market_type = 'spot' WHERE name = 'SOL-USDT'")
    async with _client_of(settings, "http://127.0.0.1:9") as client:
        cancelled = await client.delete(jobs[1]["status_url"])
        listed = await client.get("/backfills")
        told = await client.get(jobs[0]["status_url"])

    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert [entry["job"] for entry in listed.json()["backfills"]] == [3, 2, 1]
    assert listed.json()["backfills"][0]["progress"] is None
    assert listed.json()["backfills"][0]["estimate"] is None
    assert listed.json()["backfills"][0]["job"] == strange["job"]
    done = {"slots": 2 * 499, "covered": 0, "share": 0.0, "unconfirmed": 0}
    assert told.json()["progress"] == done
    assert told.json()["estimate"]["pages"] == 2


@asynccontextmanager
async def _client_of(settings: Settings, exchanges: str) -> AsyncGenerator[httpx.AsyncClient]:
    """Give a client of a process of its own, beside a syncer that counts as alive."""

    def exchange_settings(name: str) -> ExchangeSettings:
        return ExchangeSettings(url=f"{exchanges}/{name}", share=1.0)

    async with (
        open_services(settings, exchange_settings=exchange_settings) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        await services.runs.live("idle")
        yield client


@pytest.mark.usefixtures("idle")
async def test_series_that_can_not_be_planned_has_no_job_and_the_others_do(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """A series whose history start can't be asked is named, with a code."""
    sandbox.fault("server_error", times=100, symbol="ETHUSDT")
    asked = job_request(symbols=["BTC-USDT", "ETH-USDT"])
    answer = await client.post("/backfills", json=asked)
    alone = await client.post("/backfills", json=job_request())
    body = answer.json()

    assert answer.status_code == 202
    assert [entry["symbol"] for entry in body["jobs"]] == ["BTC-USDT"]
    assert [(entry["symbol"], entry["code"]) for entry in body["failed"]] == [
        ("ETH-USDT", "upstream_unavailable")
    ]
    assert (alone.status_code, alone.json()["code"]) == (503, "upstream_unavailable")


@pytest.mark.usefixtures("idle")
async def test_series_that_has_no_candle_is_named_beside_the_jobs(
    client: httpx.AsyncClient, services: Services
) -> None:
    """Never traded, or the first candle of the window has not closed."""
    asked = {"exchange": "hyperliquid", "symbols": ["RNDR", "MATIC"], "intervals": ["1h"]}
    start = to_ms(services.settings.clock() - timedelta(hours=1))
    late = job_request(intervals=["1m", "1d"], start=start, end=None)
    answers = [
        await client.post("/backfills", json={**item, "dry_run": dry_run})
        for item in (asked, late)
        for dry_run in (True, False)
    ]
    alone = await client.post("/backfills", json={**asked, "symbols": ["RNDR"]})
    told = [
        (
            [(entry["symbol"], entry["interval"]) for entry in answer.json()["jobs"]],
            [
                (entry["symbol"], entry["interval"], entry["code"])
                for entry in answer.json()["failed"]
            ],
        )
        for answer in answers
    ]

    assert told[:2] == [([("MATIC-USDC", "1h")], [("RNDR-USDC", "1h", "not_found")])] * 2
    assert told[2:] == [([("ETH-USDT", "1m")], [("ETH-USDT", "1d", "invalid_window")])] * 2
    assert (alone.status_code, alone.json()["code"]) == (404, "not_found")
    assert "no candle of it so far" in alone.json()["detail"]


@pytest.mark.usefixtures("idle")
async def test_what_a_plan_takes_counts_what_is_queued_ahead(client: httpx.AsyncClient) -> None:
    """Of each series and of all, planned or opened; a larger job waits behind."""
    await posted(client, symbol="BTC-USDT", end=START_MS + 50 * PAGE_MS)
    await posted(client, symbol="DOGE-USDT", end=START_MS + 90 * PAGE_MS)
    long: dict[str, Any] = {"end": START_MS + 60 * PAGE_MS}
    both = job_request(symbols=["ETH-USDT", "SOL-USDT"], **long)
    planned = (await client.post("/backfills", json={**both, "dry_run": True})).json()
    opened = (await client.post("/backfills", json=both)).json()
    three = job_request(symbols=["ETH-USDT", "SOL-USDT", "XRP-USDT"], dry_run=True, **long)
    again = (await client.post("/backfills", json=three)).json()
    page = 2 / 36

    for answer, pages in (
        (planned, [110, 170]),
        (opened, [110, 170]),
        (again, [110, 170, 230]),
    ):
        seconds = [entry["estimate"]["eta_s"] for entry in answer["jobs"]]
        assert seconds == pytest.approx([count * page for count in pages], abs=0.05)
        assert answer["estimate"]["eta_s"] == pytest.approx(pages[-1] * page, abs=0.05)
        assert answer["estimate"]["pages"] == 60 * len(pages)


@pytest.mark.usefixtures("idle")
async def test_interval_that_is_named_twice_counts_once(client: httpx.AsyncClient) -> None:
    """And a symbol that is named in two ways."""
    asked = job_request(symbols=["ETH-USDT", "eth-usdt", "ETHUSDT"], intervals=["1m", "1m"])
    planned = (await client.post("/backfills", json={**asked, "dry_run": True})).json()

    assert len(planned["jobs"]) == 1
    assert planned["estimate"]["pages"] == 2


@pytest.mark.usefixtures("idle")
async def test_wait_behind_a_job_counts_what_the_exchange_still_has(
    client: httpx.AsyncClient,
) -> None:
    """Hyperliquid: the job ahead asks for years, and takes as long as 5,000 candles."""
    asked = {"exchange": "hyperliquid", "market_type": "perp", "intervals": ["1m"]}
    first = await client.post("/backfills", json={**asked, "symbols": ["BTC"]})
    second = await client.post("/backfills", json={**asked, "symbols": ["ETH"]})
    alone, behind = (item.json()["jobs"][0]["estimate"]["eta_s"] for item in (first, second))

    assert 1.7 * alone < behind < 2.3 * alone
    jobs = (await client.get("/backfills")).json()["backfills"]
    assert [job["estimate"]["eta_s"] for job in jobs] == pytest.approx([behind, alone], rel=0.1)


# So many tokens that users may ask and a backfill has to wait, for some seconds.
_SCARCE = "UPDATE rate_budgets SET tokens = 50, refilled_at = now() WHERE exchange = 'hyperliquid'"
_COINS = [SeriesName("hyperliquid", "perp", f"{coin}-USDC", "1h") for coin in ("ETH", "SOL")]


async def _symbols_known(services: Services, exchange: str, market_type: str) -> None:
    await services.resolver.directory.refresh(
        services.resolver.directory.adapter(exchange, market_type)
    )


async def test_planning_leaves_users_their_tokens_and_waits_for_its_own(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """For longer than one question may take; a user is served meanwhile."""
    impatient = settings.model_copy(update={"fetch_deadline_seconds": 2.0})
    async with opened_services(impatient, sandbox) as services:
        await _symbols_known(services, "hyperliquid", "perp")
        database.execute(_SCARCE)
        planning = asyncio.create_task(services.planning.plan(_COINS, None, None))
        await asyncio.sleep(0.1)
        await services.resolver.series("hyperliquid", "perp", "BTC", "1d")
        assert not planning.done()
        plan = await planning

    assert [fill.name for fill in plan.planned] == _COINS
    assert plan.failed == []


async def test_answer_does_not_wait_for_a_limit_that_is_used_up_for_long(
    services: Services, client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """Every series is planned, none fails for it; known facts are told as ever."""
    await services.resolver.series("hyperliquid", "perp", "ETH", "1h")
    database.execute(_SCARCE.replace("50", "-5000"))
    asked = {"exchange": "hyperliquid", "symbols": ["SOL", "ETH", "k*"], "intervals": ["1h"]}
    body = (await client.post("/backfills", json={**asked, "dry_run": True})).json()

    assert body["failed"] == []
    assert len(body["jobs"]) > 5
    assert [job["symbol"] for job in body["jobs"] if job["begins_known"]] == ["ETH-USDC"]


async def test_job_of_what_could_not_be_asked_in_time_is_asked_by_its_worker(
    services: Services,
    client: httpx.AsyncClient,
    sandbox: Sandbox,
    database: psycopg.Connection,
) -> None:
    """The unknown history start is reported; showing the job does not ask for it."""
    await _symbols_known(services, "hyperliquid", "perp")
    database.execute(_SCARCE)
    await services.runs.live("idle")
    plan = await services.planning.plan(_COINS[:1], None, None, patience_seconds=0.5)
    (opened,) = await services.backfills.open(plan.planned)
    url = f"/backfills/{opened.job.id}"
    queued = (await client.get(url)).json()
    probes = [entry for entry in sandbox.requests() if "req" in entry["params"]]
    await services.runs.leave("idle")
    async with running_syncer(services):
        job = await ended(client, {"status_url": url})

    assert probes == []
    assert (queued["begins_known"], queued["beyond_memory"]) == (False, [])
    assert queued["start"] == to_ms(EARLIEST)
    assert 4990 <= queued["estimate"]["candles"] <= 5000
    assert (job["state"], job["begins_known"]) == ("done", True)
    assert job["start"] == job["beyond_memory"][0]["start"] > to_ms(EARLIEST)


async def test_job_learns_where_its_history_begins(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Coinbase does not tell: the first known day is assumed, then the first candle."""
    asked = {"exchange": "coinbase", "symbols": ["AERO-USD"], "intervals": ["6h"]}
    async with (
        opened_services(settings, sandbox) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        await services.runs.live("idle")
        unknown = (await client.post("/backfills", json={**asked, "dry_run": True})).json()
        day = await services.resolver.series("coinbase", "spot", "AERO-USD", "1d")
        await services.history_search.find(day)
        presumed = (await client.post("/backfills", json=asked)).json()
        late = {**asked, "start": "2024-06-01", "end": "2024-07-01", "dry_run": True}
        known = (await client.post("/backfills", json=late)).json()
        queued = (await client.get(presumed["jobs"][0]["status_url"])).json()
        await services.runs.leave("idle")
        async with running_syncer(services):
            job = await ended(client, presumed["jobs"][0])
    (first,) = database.execute(
        "SELECT min(time) FROM candle_rows WHERE interval = '6h'"
    ).fetchone()  # type: ignore[misc]

    for answer in (unknown, presumed):
        assert (answer["jobs"][0]["start"], answer["jobs"][0]["begins_known"]) == (
            to_ms(EARLIEST),
            False,
        )
    assert known["jobs"][0]["begins_known"]
    assert known["estimate"]["candles"] == 30 * 4
    assert unknown["estimate"]["candles"] > 5 * presumed["estimate"]["candles"]
    assert queued["estimate"]["candles"] == presumed["estimate"]["candles"]
    assert (job["state"], job["begins_known"], job["start"]) == ("done", True, to_ms(first))
    assert presumed["estimate"]["candles"] - job["progress"]["slots"] in range(4)


async def test_wait_behind_a_job_reckons_with_what_is_known_of_its_beginning(
    services: Services, client: httpx.AsyncClient, database: psycopg.Connection
) -> None:
    """The first known day: slots before it are no work."""
    await services.runs.live("idle")
    asked = {"exchange": "coinbase", "intervals": ["1m"]}
    await services.resolver.series("coinbase", "spot", "AERO-USD", "1d")
    database.execute("UPDATE series SET history_begins = '2024-02-13Z'")
    first = (await client.post("/backfills", json={**asked, "symbols": ["AERO-USD"]})).json()
    longer = {**asked, "symbols": ["ETH-USD"], "start": "2024-01-01"}
    behind = (await client.post("/backfills", json=longer)).json()
    alone, both = first["jobs"][0]["estimate"], behind["jobs"][0]["estimate"]

    expected = alone["eta_s"] * (1 + both["weight"] / alone["weight"])
    assert both["eta_s"] == pytest.approx(expected, rel=0.01)


@pytest.mark.usefixtures("idle")
async def test_job_that_was_narrowed_is_still_the_same_job(
    services: Services, database: psycopg.Connection
) -> None:
    """For a request from before the start; neither job gets the other's window."""
    series = await services.resolver.series("coinbase", "spot", "AERO-USD", "6h")
    now = series.grid.floor(services.settings.clock())
    whole = Window(EARLIEST, now)
    (begins,) = database.execute(
        "UPDATE series SET history_begins = '2024-02-13 18:00Z' RETURNING history_begins"
    ).fetchone()  # type: ignore[misc]
    narrow = Window(begins, now)
    one = await services.jobs.get_or_create(series.id, whole, timedelta(0))
    job = await services.jobs.get(one)
    assert job
    await services.backfills.narrow(job, replace(series, history_start=begins))
    narrowed = await services.jobs.get(one)
    assert narrowed
    same = [
        await services.jobs.get_or_create(series.id, item, timedelta(0)) for item in (whole, narrow)
    ]
    longer = Window(EARLIEST, now + timedelta(hours=6))
    other = await services.jobs.get_or_create(series.id, longer, timedelta(0))
    await services.jobs.narrow(other, narrow)
    untouched = await services.jobs.get(other)

    assert narrowed.window == narrow
    assert same == [one, one]
    assert untouched
    assert untouched.window == longer


async def test_job_of_what_was_never_traded_fails_and_says_so(settings: Settings) -> None:
    """A product that is listed, and whose first candle is yet to come."""
    clock = Clock.starting_at(datetime(2025, 6, 1, 12, tzinfo=UTC))
    told = settings.model_copy(update={"clock": clock})
    asked = {"exchange": "coinbase", "symbols": ["HYPE-USD"], "intervals": ["1h"]}
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        async with (
            opened_services(told, sandbox) as services,
            connected(app_of(services), token_of(told)) as client,
            running_syncer(services),
        ):
            made = await client.post("/backfills", json=asked)
            job = await ended(client, made.json()["jobs"][0])
            asked_for = [
                entry["params"].get("granularity")
                for entry in sandbox.requests()
                if "HYPE-USD" in entry["path"]  # canaries are of other products
            ]

    assert (job["state"], job["error"]) == ("failed", "the exchange has no candle of it so far")
    assert "3600" not in asked_for
    assert "86400" in asked_for


async def test_step_that_brings_nothing_is_not_tried_again_at_once(
    settings: Settings, sandbox: Sandbox
) -> None:
    """A job ends after settling and absence grace, also where settling takes longer."""
    delays = {"settle_seconds": 600, "absence_grace_seconds": 300}
    async with opened_services(settings, sandbox, **delays) as services:
        series = await services.resolver.series("binance", "perp", "ETH-USDT", "1m")
        now = series.grid.floor(Clock()())
        window = await services.bulk.window(series, now - timedelta(hours=1), None)
        fill = services.bulk.steps(series, window, oldest_first, Priority.BACKFILL)
        steps = [step async for step in fill]

        assert now - timedelta(minutes=11) <= window.end <= now - timedelta(minutes=9)
        assert [(step.delay, list(step.lost)) for step in steps] == [(None, [])]


async def test_step_that_changed_nothing_is_followed_by_a_pause(
    settings: Settings, sandbox: Sandbox
) -> None:
    """A window that reaches into what has not settled: the database is left in peace."""
    async with opened_services(settings, sandbox, settle_seconds=600) as services:
        series = await services.resolver.series("binance", "perp", "ETH-USDT", "1m")
        now = series.grid.floor(Clock()())
        window = Window(now - timedelta(minutes=5), now)
        fill = services.bulk.steps(series, window, oldest_first, Priority.BACKFILL)
        begun = time.monotonic()
        async with aclosing(fill):
            for _ in range(3):
                await anext(fill)

        assert time.monotonic() - begun >= 2
