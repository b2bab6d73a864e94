"""`mdp backfill` and `mdp coverage` from outside: output and exit codes."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from support.places import PROJECT
from support.sandbox import MINUTE_MS, Sandbox, running_sandbox
from support.services import opened_services
from support.waiting import eventually, wait_until

from mdp_core.backfill.bulk import Step
from mdp_core.backfill.chunks import oldest_first
from mdp_core.backfill.planning import PlannedFill
from mdp_core.domain.clock import Clock, from_ms
from mdp_core.domain.intervals import Interval
from mdp_core.domain.windows import Window
from mdp_core.errors import StoreUnavailable
from mdp_core.series.selection import Selection, SeriesName
from mdp_core.settings import Settings
from mdp_core.storage.catalog.inventory import HoldingFilter, read_holdings
from mdp_core.wiring import Services
from scripts.cli.backfill_display import PlainDisplay, SeriesProgress
from scripts.cli.backfill_run import BackfillRequest, SeriesFill
from scripts.sandbox.app import SandboxOptions

PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
END_MS = START_MS + 4 * PAGE_MS
SERIES = 5000
NOW = datetime(2026, 10, 7, tzinfo=UTC)

_COVER = "UPDATE series SET coverage = %(ranges)s::tstzmultirange WHERE id = %(id)s"

_FILL = """
WITH new AS (
    INSERT INTO symbols (exchange, market_type, name, native, base, quote, multiplier, active)
    SELECT 'binance', 'perp', 'X' || n || '-USDT', 'X' || n || 'USDT', 'X' || n, 'USDT', 1, true
    FROM generate_series(1, %(series)s) AS n RETURNING id
)
INSERT INTO series (symbol_id, interval, coverage)
SELECT id, '1m', range_agg(tstzrange(begin, begin + interval '20000 minutes'))
FROM new, generate_series('2020-01-01'::timestamptz, '2020-01-01'::timestamptz
                          + interval '270000 minutes', interval '30000 minutes') AS begin
GROUP BY id
"""


@pytest.fixture
def environment(settings: Settings, sandbox: Sandbox) -> Mapping[str, str]:
    """The variables with which a process joins the test's database and sandbox."""
    return {
        "DATABASE_URL": settings.database_url,
        "MDP_BINANCE_URL": f"{sandbox.url}/binance",
        "MDP_HYPERLIQUID_URL": f"{sandbox.url}/hyperliquid",
        "MDP_COINBASE_URL": f"{sandbox.url}/coinbase",
        "MDP_COINBASE_SHARE": "1.0",
        "MDP_SECOND_LOOK_SECONDS": "0.05",
    }


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli.entry", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def run_on_terminal(environment: Mapping[str, str], *arguments: str) -> str:
    """Run a command on a terminal of its own; give all its output, on any stream."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(ours, (40, 140))
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.cli.entry", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment, "TERM": "xterm"},
        stdout=its,
        stderr=its,
    ):
        os.close(its)
        written = b""
        with suppress(OSError):  # how a terminal ends
            while chunk := os.read(ours, 65_536):
                written += chunk
    os.close(ours)
    return written.decode()


def backfill(*more: str, symbols: str = "ETH-USDT,1000*PEPE*") -> list[str]:
    bounds = ["--start", str(START_MS), "--end", str(END_MS)]
    return ["backfill", "binance", "perp", symbols, "1m", *bounds, *more]


def test_backfill_plans_fills_and_is_done(
    environment: Mapping[str, str], sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """A dry run asks for no candle; the run gets all and says so; coverage shows it."""
    planned = run(environment, *backfill("--dry-run"))
    asked = sandbox.candle_requests()
    filled = run(environment, *backfill("--json", "--newest-first"))
    shown = run(environment, "coverage", "binance", "perp", "*pepe*", "--json")
    events = [json.loads(line) for line in filled.stdout.splitlines()]
    newest = [int(request["params"]["startTime"]) for request in sandbox.candle_requests()]

    assert (planned.returncode, asked) == (0, []), planned.stderr
    assert planned.stdout.splitlines()[3].split() == ["all", "3,992", "8", "16"]
    assert (filled.returncode, filled.stderr) == (0, "")
    assert [events[0]["event"], events[-1]["event"]] == ["plan", "end"]
    assert events[0]["estimate"]["pages"] == 8 == len(newest)
    assert events[-1]["done"] == events[-1]["wanted"] == 8 * 499
    (holding,) = [json.loads(line) for line in shown.stdout.splitlines()]
    assert (holding["symbol"], holding["slots"], holding["parts"]) == ("1000PEPE-USDT", 1996, 1)
    assert (holding["start"], holding["end"]) == (START_MS, END_MS)
    assert database.execute("SELECT count(*) FROM candles").fetchone() == (8 * 499,)


@pytest.mark.usefixtures("sandbox")
def test_backfill_on_a_terminal_has_it_to_itself(
    environment: Mapping[str, str], sandbox: Sandbox
) -> None:
    """A bar for each series and one for all, which no line of a log breaks."""
    sandbox.settings(latency_ms=400)  # so that a bar is seen before it is full
    written = re.sub(r"\x1b\[[\d;?]*\w", "", run_on_terminal(environment, *backfill()))

    assert re.search(r"all +━+ 100% [\d,]+ candles/s", written)
    assert all(f"binance perp {name}-USDT 1m" in written for name in ("ETH", "1000PEPE"))
    assert re.search(r"3,992 candles in 0:00:\d\d, [\d,]+ candles/s", written)
    assert "filled from the exchange" not in written
    drawn = {_form(line) for line in re.split(r"[\r\n]+", written)}
    assert {_form(line) for line in _drawn_on_the_page()} <= drawn


def _drawn_on_the_page() -> list[str]:
    page = (PROJECT / "docs" / "backfill.md").read_text()
    (block,) = re.findall(r"(?s)```text\n([^`]*━.*?)```", page)
    return block.splitlines()


def _form(line: str) -> str:
    """Give what stays of a line whatever the series, and however far it has come."""
    line = re.sub(r"binance perp \S+ \w+", "SERIES", line)
    return " ".join(re.sub(r"[━╸╺]+", "━", re.sub(r"[\d,]+", "0", line)).split())


def test_backfill_that_did_not_get_all_says_so(
    environment: Mapping[str, str], sandbox: Sandbox
) -> None:
    """A wrong row and a forgotten history: exit code 1, the missing windows by name."""
    sandbox.fault("ohlc_violation", times=1000, startTime=str(START_MS))
    wrong = run(environment, *backfill(symbols="ETH-USDT"))
    since = ["hyperliquid", "perp", "ETH", "1h", "--start", "2024-01-01", "--dry-run"]
    forgotten = run(environment, "backfill", *since)
    unknown = run(environment, *backfill(symbols="NOPE-USDT"))

    assert wrong.returncode == 1
    assert "1,995 of 1,996 fetched" in wrong.stdout
    assert "missing" in wrong.stdout
    assert forgotten.returncode == 1
    assert "the exchange no longer has" in forgotten.stdout
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "unknown symbol 'NOPE-USDT'" in unknown.stderr


@pytest.mark.usefixtures("sandbox")
def test_all_that_the_exchange_still_has_is_all(environment: Mapping[str, str]) -> None:
    """Without --start forgotten windows are no loss: the plan names them, exit 0."""
    got = run(environment, "backfill", "hyperliquid", "perp", "ETH", "1h,1h", "--json")
    plan, *_, series, end = [json.loads(line) for line in got.stdout.splitlines()]

    assert got.returncode == 0
    assert len(plan["series"]) == 1
    assert len(plan["series"][0]["beyond_memory"]) == 1
    assert series["missing"] == []
    assert (end["event"], end["complete"]) == ("end", True)
    assert end["done"] == end["wanted"] >= 4980


def test_series_that_fails_does_not_keep_the_others_back(
    environment: Mapping[str, str], sandbox: Sandbox
) -> None:
    """One history start can't be found: the other is filled, the code is 1."""
    sandbox.fault("server_error", times=100, symbol="ETHUSDT")
    got = run(environment, *backfill("--json"))
    plan, *_, end = [json.loads(line) for line in got.stdout.splitlines()]

    assert got.returncode == 1
    assert [entry["symbol"] for entry in plan["series"]] == ["1000PEPE-USDT"]
    assert [(entry["symbol"], entry["code"]) for entry in plan["failed"]] == [
        ("ETH-USDT", "upstream_unavailable")
    ]
    assert (end["complete"], end["done"]) == (False, 4 * 499)


_GONE = """
WITH exchange AS (INSERT INTO exchanges (code, name) VALUES ('binance', 'Binance') RETURNING code),
gone AS (
    INSERT INTO symbols (exchange, market_type, name, native, base, quote, multiplier, active)
    SELECT code, 'perp', 'GONE-USDT', 'GONEUSDT', 'GONE', 'USDT', 1, false FROM exchange
    RETURNING id
)
INSERT INTO series (symbol_id, interval, history_begins) SELECT id, '1m', '2020-01-01' FROM gone
"""


def test_series_that_the_exchange_refuses_is_given_up_soon(
    environment: Mapping[str, str], sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """After a few chunks of many; all that was asked for is named, with the code."""
    database.execute(_GONE)
    year = ["--start", "2024-01-01", "--end", "2025-01-01", "--json"]
    got = run(environment, "backfill", "binance", "perp", "GONE-USDT", "1m", *year)
    *_, series, end = [json.loads(line) for line in got.stdout.splitlines()]
    missing = sum(gap["end"] - gap["start"] for gap in series["missing"])

    assert (got.returncode, end["complete"]) == (1, False)
    assert {gap["reason"] for gap in series["missing"]} == {"upstream_rejected"}
    assert "Invalid symbol" in series["missing"][0]["detail"]
    assert missing == 366 * 1440 * MINUTE_MS
    assert len(sandbox.candle_requests()) < 100


def test_series_that_was_never_traded_is_named_and_nothing_is_fetched(
    environment: Mapping[str, str],
) -> None:
    """A product that is listed, and whose first candle is yet to come."""
    clock = Clock.starting_at(datetime(2025, 6, 1, 12, tzinfo=UTC))
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        joined = {"MDP_CLOCK": str(clock), "MDP_COINBASE_URL": f"{sandbox.url}/coinbase"}
        got = run({**environment, **joined}, "backfill", "coinbase", "spot", "HYPE-USD", "1h")
        asked = [
            entry["params"].get("granularity")
            for entry in sandbox.requests()
            if "HYPE-USD" in entry["path"]  # canaries are of other products
        ]

    assert got.returncode == 1
    assert "HYPE-USD 1h: not filled: the exchange has no candle of it so far" in got.stdout
    assert got.stderr == "searching where the histories of 1 series begin\n"
    assert "3600" not in asked
    assert "86400" in asked


def test_beginning_is_searched_for_no_closer_than_is_asked(
    environment: Mapping[str, str], sandbox: Sandbox
) -> None:
    """A late start: the first day will do, asked for once. Without it, to the slot."""
    late = ["coinbase", "spot", "AERO-USD", "1m", "--start", "2024-06-01", "--end", "2024-06-02"]
    first = run(environment, "backfill", *late, "--dry-run", "--json")
    days = [entry["params"].get("granularity") for entry in sandbox.requests()]
    sandbox.clear()
    second = run(environment, "backfill", *late, "--dry-run", "--json")
    again = [entry["params"].get("granularity") for entry in sandbox.requests()]
    hours = ["coinbase", "spot", "AERO-USD", "1h"]
    whole = run(environment, "backfill", *hours, "--dry-run", "--json")
    (plan,) = [json.loads(line) for line in second.stdout.splitlines()]
    events = [json.loads(line) for line in whole.stdout.splitlines()]
    bounds = {"start": "2024-02-12T00:00:00Z", "end": "2024-02-13T23:59:00Z"}
    truth = sandbox.ask("/coinbase/products/AERO-USD/candles", {"granularity": 86400, **bounds})

    assert json.loads(first.stdout.splitlines()[0])["event"] == "search"
    assert ("86400" in days, "60" in days) == (True, False)
    assert "86400" not in again
    assert plan["estimate"]["candles"] == 1440
    assert [event["event"] for event in events] == ["search", "plan"]
    assert plan["series"][0]["begins_known"]
    day_ms = truth[-1][0] * 1000
    assert 0 <= events[1]["series"][0]["start"] - day_ms < 1440 * MINUTE_MS


_END_SESSIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'mdp-backfill' AND datname = current_database()
"""


def test_backfill_outlives_a_hiccup_of_the_database(
    environment: Mapping[str, str], sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Its sessions are ended under it, several times: it goes on, and gets all."""
    sandbox.settings(latency_ms=200)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(
            run, environment, *backfill("--json", "--start", str(START_MS - 80 * PAGE_MS))
        )
        wait_until(lambda: len(sandbox.candle_requests()) > 20)
        for _ in range(6):
            wait_until(lambda: database.execute(_END_SESSIONS).fetchone() != (0,))
        got = running.result()
    events = [json.loads(line) for line in got.stdout.splitlines()]
    delays = [event["delay"] for event in events if event["event"] == "progress" and event["delay"]]

    assert got.returncode == 0, got.stderr
    assert delays
    assert [event["missing"] for event in events if event["event"] == "series"] == [[], []]
    assert (events[-1]["event"], events[-1]["complete"]) == ("end", True)


def _filling(services: Services, planned: PlannedFill) -> SeriesFill:
    display = PlainDisplay()
    selection = Selection("binance", "perp", ("ETH-USDT",), ("1m",))
    request = BackfillRequest(selection, None, None, dry_run=False, newest_first=False)
    return SeriesFill(services.bulk, request, SeriesProgress(planned), oldest_first, display)


async def _planned(services: Services, pages: int) -> PlannedFill:
    name = SeriesName("binance", "perp", "ETH-USDT", "1m")
    bounds = from_ms(START_MS), from_ms(START_MS + pages * PAGE_MS)
    (planned,) = (await services.planning.plan([name], *bounds)).planned
    return planned


async def test_what_is_given_up_while_the_database_is_away_is_named(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """By the last known state: not by later rows, nothing beside the window."""
    async with opened_services(settings, sandbox) as services:
        planned = await _planned(services, 100)
        filling = _filling(services, planned)
        sandbox.settings(latency_ms=100)
        running = asyncio.create_task(filling.run())
        await eventually(lambda: len(sandbox.candle_requests()) > 40)
        with _away(database, settings.database_url):
            while not running.done():
                filling.fruitless = 1000
                await asyncio.sleep(0.05)
        await running
    lost = [window.window for window in filling.progress.lost]

    assert lost
    assert planned.window.start < lost[0].start
    assert lost[-1].end == planned.window.end
    assert isinstance(filling.progress.lost[0].error, StoreUnavailable)


@contextmanager
def _away(database: psycopg.Connection, url: str) -> Generator[None]:
    """Refuse new sessions of the database; open ones stay."""
    name = sql.Identifier(database.info.dbname)
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    elsewhere = make_conninfo(url, dbname="postgres")
    with psycopg.connect(elsewhere, autocommit=True) as other:
        other.execute(allow.format(name, sql.SQL("false")))
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        yield
        other.execute(allow.format(name, sql.SQL("true")))


@pytest.mark.usefixtures("sandbox")
async def test_step_that_brought_something_is_not_fruitless(services: Services) -> None:
    """Despite an obstacle: its rows show in the remainder of the next."""
    planned = await _planned(services, 30)
    filling, grid = _filling(services, planned), planned.series.grid
    away, end = StoreUnavailable("PoolTimeout"), planned.window.end
    shrinking = [Window(grid.at(grid.index(planned.window.start) + n), end) for n in range(12)]
    counts = list[int]()
    for gap in [*shrinking, *shrinking[-1:] * 3]:
        await filling.record(Step(None, [], away, [gap]))
        counts.append(filling.fruitless)

    assert counts == [1] * 12 + [2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["backfill", "binance", "perp", "", "1m"], 2, "no symbols"),
        (["backfill", "binance", "perp", "BTC-USDT", " ,"], 2, "no intervals"),
        (["coverage", "binanse"], 1, "unknown exchange 'binanse'"),
        (["coverage", "binance", "spot"], 1, "unknown market type 'spot' for binance: one of perp"),
        (["coverage", "binance", "perp", "*", "1q"], 1, "'1q'"),
    ],
)
@pytest.mark.usefixtures("sandbox")
def test_command_that_names_nothing_is_no_success(
    environment: Mapping[str, str], arguments: list[str], code: int, said: str
) -> None:
    """A variable that is not set, a slip of the pen: said, and told by the exit code."""
    done = run(environment, *arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


async def test_coverage_is_found_by_either_name(
    services: Services, database: psycopg.Connection
) -> None:
    """By the names that a backfill takes: ours, and the exchange's own."""
    await services.resolver.series("binance", "perp", "ETH-USDT", "1d")
    database.execute("UPDATE series SET coverage = '{[2024-01-01, 2024-01-02)}'")
    found = {
        name: len(await read_holdings(services.database, HoldingFilter(symbols=[name])))
        for name in ("ETH-USDT", "ethusdt", "ETHU*", "ETH")
    }

    assert found == {"ETH-USDT": 1, "ethusdt": 1, "ETHU*": 1, "ETH": 0}


async def test_coverage_counts_the_slots_of_every_interval_in_one_order(
    services: Services, database: psycopg.Connection
) -> None:
    """As grids count them, the shortest first, whichever series was asked for first."""
    expected = list[tuple[str, int]]()
    for interval in reversed(Interval):
        series = await services.resolver.series("binance", "perp", "ETH-USDT", interval.value)
        grid = series.grid
        parts = [
            Window(grid.floor(datetime(year, 1, 15, tzinfo=UTC)), grid.floor(end))
            for year, end in ((2021, datetime(2022, 7, 1, tzinfo=UTC)), (2024, NOW))
        ]
        expected.append((interval.value, sum(grid.count(part.start, part.end) for part in parts)))
        ranges = "{" + ",".join(f"[{part.start},{part.end})" for part in parts) + "}"
        database.execute(_COVER, {"id": series.id, "ranges": ranges})
    holdings = await read_holdings(services.database, HoldingFilter())

    assert [(holding.interval, holding.slots) for holding in holdings] == expected[::-1]
    assert {holding.parts for holding in holdings} == {2}


async def test_coverage_of_a_billion_candles_is_told_at_once(
    services: Services, database: psycopg.Connection
) -> None:
    """Five thousand series of two hundred thousand slots in ten parts, by coverage."""
    database.execute("INSERT INTO exchanges (code, name) VALUES ('binance', 'Binance')")
    database.execute(_FILL, {"series": SERIES})
    holdings = await read_holdings(services.database, HoldingFilter())
    some = await read_holdings(services.database, HoldingFilter("binance", "perp", ["x1?-*"]))

    assert sum(holding.slots for holding in holdings) == 1_000_000_000
    assert {(holding.slots, holding.parts) for holding in holdings} == {(200_000, 10)}
    assert len(holdings) == SERIES
    assert len(some) == 10
