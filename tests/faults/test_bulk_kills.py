"""Backfills and syncers that are killed: what they had is kept, and others go on."""

import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg
import pytest
from support.processes import environment_of, running_mdp
from support.sandbox import MINUTE_MS, Sandbox
from support.services import opened_services
from support.waiting import eventually, wait_until

from mdp_core.backfill.chunks import oldest_first
from mdp_core.domain.clock import from_ms
from mdp_core.ratelimit.priority import Priority
from mdp_core.series.selection import SeriesName
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from syncer.app import running_syncer

PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
PAGES = 40
SYMBOLS = ("ETH-USDT", "BTC-USDT", "SOL-USDT")
# Pages of one exchange that a process asks for at once.
IN_FLIGHT = 8
PATIENCE_SECONDS = 60

_COVERED_PAGES = """
SELECT coalesce(sum(extract(epoch FROM upper(w) - lower(w)) / 60 / 499), 0)::int
FROM series, unnest(coverage) w
"""
_CONTENT = """
SELECT symbol, interval, count(*), sum(hashtextextended(candle_rows::text, 0)) FROM candle_rows
GROUP BY symbol, interval ORDER BY symbol, interval
"""

# None of this depends on the kind of server, and all of it takes its time.


@pytest.fixture
def environment(settings: Settings, sandbox: Sandbox) -> Mapping[str, str]:
    """The variables with which a process joins the test's database and sandbox."""
    return environment_of(settings, sandbox)


async def test_killed_backfill_goes_on_where_it_was(
    environment: Mapping[str, str],
    settings: Settings,
    sandbox: Sandbox,
    database: psycopg.Connection,
) -> None:
    """Killed and run again: only pages in flight are asked for twice; same candles.

    To the last bit: those of an undisturbed backfill.
    """
    sandbox.settings(latency_ms=150)
    with running_mdp(environment, *_backfill()) as process:
        wait_until(lambda: _number(database, _COVERED_PAGES) >= 2 * IN_FLIGHT)
        process.kill()
    sandbox.settings(latency_ms=0)
    with running_mdp(environment, *_backfill()) as process:
        assert process.wait(PATIENCE_SECONDS) == 0
    asked, interrupted = _asked(sandbox), database.execute(_CONTENT).fetchall()
    database.execute("TRUNCATE candles; UPDATE series SET coverage = '{}'")
    async with opened_services(settings, sandbox) as services:
        await _fill(services)

    assert len(asked) == len(SYMBOLS) * PAGES
    assert sum(asked.values()) <= len(SYMBOLS) * PAGES + IN_FLIGHT
    assert [count for _, _, count, _ in interrupted] == [PAGES * 499] * len(SYMBOLS)
    assert database.execute(_CONTENT).fetchall() == interrupted


async def test_syncers_share_a_job_and_survive_one_of_them(
    environment: Mapping[str, str], services: Services, sandbox: Sandbox
) -> None:
    """Three processes: only pages in flight at a kill are fetched twice; none missed."""
    sandbox.settings(latency_ms=200)
    name = SeriesName("binance", "perp", "ETH-USDT", "1m")
    bounds = from_ms(START_MS), from_ms(START_MS + 4 * PAGES * PAGE_MS)
    with running_mdp(environment, "syncer") as one, running_mdp(environment, "syncer"):
        await _eventually_async(services, syncers=2)
        with running_mdp(environment, "syncer"):
            await _eventually_async(services, syncers=3)
            plan = await services.planning.plan([name], *bounds)
            sandbox.clear()
            (followed,) = await services.backfills.open(plan.planned)
            await eventually(lambda: len(_asked(sandbox)) > PAGES)
            one.kill()
            job = followed.job.id
            while (followed := await services.backfills.get(job)).job.state.is_open:
                time.sleep(0.1)  # noqa: ASYNC251 - the test's own loop has nothing else to do
    asked = _asked(sandbox)

    assert followed.job.state == "done"
    assert len(asked) == 4 * PAGES
    assert sum(asked.values()) <= 4 * PAGES + IN_FLIGHT


async def test_run_of_a_killed_syncer_is_taken_over(
    environment: Mapping[str, str],
    settings: Settings,
    sandbox: Sandbox,
    database: psycopg.Connection,
) -> None:
    """Killed in the middle of a run; another syncer runs it within 15 seconds."""
    running = "SELECT count(*) FROM job_runs WHERE job LIKE 'refresh%' AND ended_at IS NULL"
    sandbox.settings(latency_ms=8000)
    async with opened_services(settings, sandbox) as services:
        with running_mdp(environment, "syncer") as process:
            await eventually(lambda: _number(database, running) == 3)
            async with running_syncer(services) as name:
                process.kill()
                killed_at = time.time()
                sandbox.settings(latency_ms=0)
                await eventually(lambda: _number(database, running) == 0)
    # The latest of each: where the next was due meanwhile, the killed one's is closed, not run.
    query = "SELECT DISTINCT ON (job) worker, extract(epoch FROM started_at)::float8, error \
             FROM job_runs WHERE job LIKE 'refresh%' ORDER BY job, due_at DESC"
    runs = database.execute(query).fetchall()

    assert {worker for worker, _, _ in runs} == {name}
    assert max(started for _, started, _ in runs) - killed_at < 15
    assert {error for _, _, error in runs} == {None}


def test_syncer_stops_at_sigterm_and_leaves_its_runs_to_others(
    environment: Mapping[str, str], sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """In the middle of runs: exit code 0 within seconds, and its claims are free."""
    running = "SELECT count(*) FROM job_runs WHERE job LIKE 'refresh%' AND ended_at IS NULL"
    free = "SELECT count(*) FROM job_runs WHERE ended_at IS NULL AND heartbeat_at = '-infinity'"
    sandbox.settings(latency_ms=8000)
    with running_mdp(environment, "syncer") as process:
        wait_until(lambda: _number(database, running) == 3)
        process.send_signal(signal.SIGTERM)

        assert process.wait(15) == 0
    assert _number(database, free) >= 3
    assert _number(database, "SELECT count(*) FROM syncers") == 0


async def _fill(services: Services) -> None:
    names = [SeriesName("binance", "perp", symbol, "1m") for symbol in SYMBOLS]
    bounds = from_ms(START_MS), from_ms(START_MS + PAGES * PAGE_MS)
    for planned in (await services.planning.plan(names, *bounds)).planned:
        steps = services.bulk.steps(planned.series, planned.window, oldest_first, Priority.BACKFILL)
        assert [step async for step in steps if step.delay or step.lost] == []


async def _eventually_async(services: Services, *, syncers: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sum(syncer.is_alive for syncer in await services.runs.syncers()) < syncers:
        assert time.monotonic() < deadline, "a syncer does not start"
        time.sleep(0.1)  # noqa: ASYNC251 - the test's own loop has nothing else to do


def _backfill() -> list[str]:
    bounds = ["--start", str(START_MS), "--end", str(START_MS + PAGES * PAGE_MS)]
    return ["backfill", "binance", "perp", ",".join(SYMBOLS), "1m", *bounds]


def _asked(sandbox: Sandbox) -> Counter[tuple[Any, Any]]:
    """Count how often each page was asked for and answered, or was under way."""
    entries: Sequence[dict[str, Any]] = sandbox.candle_requests()
    return Counter((entry["params"]["symbol"], entry["params"]["startTime"]) for entry in entries)


def _number(database: psycopg.Connection, query: LiteralString) -> int:
    row = database.execute(query).fetchone()
    assert row is not None
    return int(row[0])
