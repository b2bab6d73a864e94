"""The syncer inside the test's process: what it does on schedule, on real servers."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.rows import dict_row
from support.asking import answer_to
from support.sandbox import Sandbox, running_sandbox
from support.services import opened_services
from support.waiting import eventually

from mdp_core.domain.clock import Clock, from_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.errors import InvalidParameter
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions
from syncer.app import running_syncer
from syncer.scheduled_jobs import scheduled_jobs

Rows = Callable[[LiteralString], list[dict[str, Any]]]

PATIENCE_SECONDS = 60
# A minute's candle closes every second.
FAST = 60.0
# Five thousand one-minute candles are gone in twenty-five seconds.
VERY_FAST = 12_000.0
LONGER_THAN_MEMORY = timedelta(minutes=5500)
# What takes its time and does not depend on the kind of server is tried on one.


@pytest.fixture
def rows(database: psycopg.Connection) -> Rows:
    """Asks the test's database."""

    def ask(query: LiteralString) -> list[dict[str, Any]]:
        return database.cursor(row_factory=dict_row).execute(query).fetchall()

    return ask


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> Clock:
    """A clock that all parts share, of the speed that the test names."""
    return Clock.starting_at(Clock()(), request.param)


@pytest.fixture
def fast_sandbox(clock: Clock) -> Generator[Sandbox]:
    """A sandbox of the test's own, with its clock."""
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as running:
        yield running


@pytest.fixture
async def fast_services(
    settings: Settings, fast_sandbox: Sandbox, clock: Clock
) -> AsyncGenerator[Services]:
    """Services with the same clock, which keep one coin of Hyperliquid."""
    changes = {"clock": clock, "keep": "hyperliquid:BTC:1m"}
    async with opened_services(settings.model_copy(update=changes), fast_sandbox) as opened:
        yield opened


async def test_metadata_of_every_exchange_is_there_without_a_request(
    services: Services, rows: Rows
) -> None:
    """Symbols and intervals of three exchanges come unasked; the job history says so."""
    counted = "SELECT count(DISTINCT exchange) AS n FROM symbols WHERE active"
    runs = "SELECT rows, error FROM job_runs WHERE job LIKE 'refresh%' AND ended_at IS NOT NULL"
    async with running_syncer(services):
        await eventually(lambda: len(rows(runs)) == 3)

    assert rows(counted) == [{"n": 3}]
    assert rows("SELECT count(DISTINCT exchange) AS n FROM supported_intervals") == [{"n": 3}]
    assert all(run["rows"] > 0 and run["error"] is None for run in rows(runs))
    assert rows("SELECT FROM syncers") == []


async def test_metadata_is_refreshed_at_every_start(services: Services, sandbox: Sandbox) -> None:
    """Also where these ten minutes' run is done: the exchange may be another by now."""
    for _ in range(2):
        sandbox.clear()
        async with running_syncer(services):
            await eventually(lambda: _lists_asked_for(sandbox) == 3)


def _lists_asked_for(sandbox: Sandbox) -> int:
    asked = [request for request in sandbox.requests() if request["status"] == 200]
    paths = {"/fapi/v1/exchangeInfo", "/products"}
    return sum(
        request["path"] in paths or request["params"].get("type") == "meta" for request in asked
    )


@pytest.mark.parametrize("clock", [FAST], indirect=True)
async def test_series_asked_for_once_is_kept_warm(
    fast_services: Services, fast_sandbox: Sandbox, rows: Rows
) -> None:
    """After one request at the live edge its candles come, each by a small request."""
    until = "SELECT upper(coverage) AS end FROM series JOIN symbols s ON s.id = symbol_id \
             WHERE s.native = 'ETHUSDT'"
    query = CandleQuery("binance", "perp", "ETH-USDT", "1m", limit=3)
    async with running_syncer(fast_services):
        await answer_to(fast_services, query)
        first = rows(until)[0]["end"]
        await eventually(lambda: rows(until)[0]["end"] >= first + timedelta(minutes=2))
        fast_sandbox.clear()
        begun = rows(until)[0]["end"]
        await eventually(lambda: rows(until)[0]["end"] >= begun + timedelta(minutes=6))
    asked = [request for request in fast_sandbox.candle_requests() if request["status"] == 200]
    parts = rows(
        "SELECT count(*) AS n FROM series JOIN symbols s ON s.id = symbol_id, unnest(coverage) "
        "WHERE s.native = 'ETHUSDT'"
    )
    warmed = rows("SELECT sum(rows)::int AS n FROM job_runs WHERE job = 'warm binance perp'")

    assert max(Counter(request["params"]["startTime"] for request in asked).values()) == 1
    assert all(int(request["params"]["limit"]) < 100 for request in asked)
    assert parts == [{"n": 1}]
    assert warmed[0]["n"] >= 6


async def test_every_way_to_ask_for_what_is_newest_counts_as_use(
    services: Services, rows: Rows
) -> None:
    """Also where the newest candle is in hand, and where it is the forming one."""
    query = CandleQuery("binance", "perp", "SOL-USDT", "1d")
    for _ in range(3):
        await services.edge.closed(query)
        await services.edge.forming(query)
    used = "SELECT requests FROM series_usage WHERE last_at_edge IS NOT NULL"
    await eventually(lambda: rows(used) == [{"requests": 6}])


async def test_older_hole_is_not_bridged(services: Services, rows: Rows) -> None:
    """Candles of a year ago and today's: slots between were not requested."""
    old = CandleQuery(
        "binance", "perp", "ETH-USDT", "1h", start=from_ms(1_700_000_000_000), limit=5
    )
    await answer_to(services, old)
    await answer_to(services, CandleQuery("binance", "perp", "ETH-USDT", "1h", limit=5))
    async with running_syncer(services):
        ran = "SELECT FROM job_runs WHERE job = 'warm binance perp' AND ended_at IS NOT NULL"
        await eventually(lambda: len(rows(ran)) >= 1)

    assert rows("SELECT count(*) AS n FROM series, unnest(coverage)") == [{"n": 2}]


async def test_two_syncers_share_the_runs(settings: Settings, sandbox: Sandbox, rows: Rows) -> None:
    """Both live, and every list was asked for once."""
    async with AsyncExitStack() as stack:
        names = [
            await stack.enter_async_context(
                running_syncer(await stack.enter_async_context(opened_services(settings, sandbox)))
            )
            for _ in range(2)
        ]
        runs = "SELECT FROM job_runs WHERE job LIKE 'refresh%' AND ended_at IS NOT NULL"
        await eventually(lambda: len(rows(runs)) >= 3)
        living = rows("SELECT name FROM syncers")
    lists = [
        request for request in sandbox.requests() if request["path"] == "/fapi/v1/exchangeInfo"
    ]

    assert {syncer["name"] for syncer in living} == set(names)
    assert len(lists) == len(rows("SELECT FROM job_runs WHERE job = 'refresh binance perp'"))


@pytest.mark.parametrize("clock", [VERY_FAST], indirect=True)
async def test_keeper_loses_nothing_that_the_exchange_forgets(
    fast_services: Services, clock: Clock, rows: Rows
) -> None:
    """When its first minutes are forgotten there, every minute is here."""
    begun = clock()
    kept = "SELECT coverage @> tstzrange('{}', '{}') AS all FROM series \
            JOIN symbols s ON s.id = symbol_id WHERE s.native = 'BTC' AND interval = '1m'"
    until = "SELECT upper(coverage) AS end FROM series JOIN symbols s ON s.id = symbol_id \
             WHERE s.native = 'BTC' AND interval = '1m'"
    async with running_syncer(fast_services):
        await eventually(
            lambda: (
                bool(found := rows(until))
                and (found[0]["end"] or begun) > begun + LONGER_THAN_MEMORY
            )
        )
    query = kept.format(begun.isoformat(), (begun + LONGER_THAN_MEMORY).isoformat())
    forgotten = clock() - timedelta(minutes=5000)

    assert rows(query) == [{"all": True}]  # pyright: ignore[reportArgumentType]
    assert forgotten > begun
    assert all(run["error"] is None for run in rows("SELECT error FROM job_runs"))


async def test_beginning_that_no_exchange_tells_is_found(services: Services, rows: Rows) -> None:
    """A coinbase market used for a day is known for all its history afterwards."""
    await answer_to(services, CandleQuery("coinbase", "spot", "ETH-USD", "6h", limit=2))
    async with running_syncer(services):
        known = "SELECT history_begins, history_source FROM series WHERE interval = '6h'"
        await eventually(lambda: rows(known)[0]["history_begins"] is not None)
    (series,) = rows(known)
    first = rows(
        "SELECT min(time) AS time FROM candles JOIN series ON id = series_id \
                  WHERE interval = '6h'"
    )

    assert series == {"history_begins": first[0]["time"], "history_source": "bisection"}
    assert series["history_begins"].year == 2016


async def test_many_series_are_looked_up_at_once(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """The newest are kept warm; the rest is left to requests."""
    names = [("BTC-USDT", "1m"), ("ETH-USDT", "1h"), ("SOL-USDT", "1m"), ("NO-SUCH", "1m")]
    async with opened_services(settings, sandbox) as services:
        kept = [await services.resolver.series("binance", "perp", *name) for name in names[:2]]
    async with opened_services(settings, sandbox) as services:
        await services.resolver.look_up(
            services.resolver.directory.adapter("binance", "perp"), names
        )
        database.execute("ALTER TABLE series RENAME TO away")
        found = [await services.resolver.series("binance", "perp", *name) for name in names[:2]]
        database.execute("ALTER TABLE away RENAME TO series")
        started = await services.resolver.series("binance", "perp", *names[2])

    assert found == kept
    assert started.history_start


async def test_keeping_what_nobody_forgets_is_refused(settings: Settings, sandbox: Sandbox) -> None:
    """A mistake in MDP_KEEP is said at the start, not found out years later."""
    mistaken = settings.model_copy(update={"keep": "binance:*:1m"})
    async with opened_services(mistaken, sandbox) as services:
        with pytest.raises(InvalidParameter, match="binance"):
            scheduled_jobs(services)
