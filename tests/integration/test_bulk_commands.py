"""`mdp backfill` and `mdp coverage` as they are used: what they print, and how they end."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from contextlib import suppress

import psycopg
import pytest
from conftest import MINUTE_MS, PROJECT, Sandbox

from mdp_core.inventory import HoldingFilter, read_holdings
from mdp_core.settings import Settings
from mdp_core.wiring import Services

PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
END_MS = START_MS + 4 * PAGE_MS
SERIES = 5000

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
    }


def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.entry", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def run_on_terminal(environment: Mapping[str, str], *arguments: str) -> str:
    """Run a command on a terminal of its own; give all that it wrote there, on any stream."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(ours, (40, 140))
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "scripts.entry", *arguments],
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


@pytest.mark.parametrize("server", ["plain"], indirect=True)
def test_backfill_plans_fills_and_is_done(
    environment: Mapping[str, str], sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """A dry run asks for no candle; the run gets all and says so; then coverage shows it."""
    planned = run(environment, *backfill("--dry-run"))
    asked = sandbox.candle_requests()
    filled = run(environment, *backfill("--json", "--newest-first"))
    shown = run(environment, "coverage", "binance", "perp", "*pepe*", "--json")
    events = [json.loads(line) for line in filled.stdout.splitlines()]
    newest = [int(each["params"]["startTime"]) for each in sandbox.candle_requests()]

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


@pytest.mark.parametrize("server", ["plain"], indirect=True)
@pytest.mark.usefixtures("sandbox")
def test_backfill_on_a_terminal_has_it_to_itself(environment: Mapping[str, str]) -> None:
    """A bar for each series and one for all, which no line of a log breaks."""
    written = re.sub(r"\x1b\[[\d;?]*\w", "", run_on_terminal(environment, *backfill()))

    assert re.search(r"all +━+ 100% [\d,]+ candles/s", written)
    assert all(f"binance perp {name}-USDT 1m" in written for name in ("ETH", "1000PEPE"))
    assert re.search(r"3,992 candles in 0:00:\d\d, [\d,]+ candles/s", written)
    assert "filled from the exchange" not in written
    drawn = {_form(line) for line in re.split(r"[\r\n]+", written)}
    assert {_form(line) for line in _drawn_on_the_page()} <= drawn


def _drawn_on_the_page() -> list[str]:
    page = (PROJECT / "docs" / "backfill.md").read_text()
    (block,) = re.findall(r"(?s)```text tested-by=[^\n]*\n(.*?)```", page)
    return block.splitlines()


def _form(line: str) -> str:
    """Give what stays of a line whatever the series, and however far it has come."""
    line = re.sub(r"binance perp \S+ \w+", "SERIES", line)
    return " ".join(re.sub(r"[━╸╺]+", "━", re.sub(r"[\d,]+", "0", line)).split())


@pytest.mark.parametrize("server", ["plain"], indirect=True)
def test_backfill_that_did_not_get_all_says_so(
    environment: Mapping[str, str], sandbox: Sandbox
) -> None:
    """A wrong row and a history that was forgotten: exit code 1, and what is missing by name."""
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


@pytest.mark.parametrize("server", ["plain"], indirect=True)
@pytest.mark.usefixtures("sandbox")
def test_all_that_the_exchange_still_has_is_all(environment: Mapping[str, str]) -> None:
    """Without --start nobody asked for what was forgotten: the plan names it, and the code is 0."""
    got = run(environment, "backfill", "hyperliquid", "perp", "ETH", "1h,1h", "--json")
    plan, *_, series, end = [json.loads(line) for line in got.stdout.splitlines()]

    assert got.returncode == 0
    assert len(plan["series"]) == 1
    assert len(plan["series"][0]["beyond_memory"]) == 1
    assert series["missing"] == []
    assert (end["event"], end["complete"]) == ("end", True)
    assert end["done"] == end["wanted"] >= 4980


@pytest.mark.parametrize("server", ["plain"], indirect=True)
def test_series_that_fails_does_not_keep_the_others_back(
    environment: Mapping[str, str], sandbox: Sandbox
) -> None:
    """One can't be asked where it begins: the other is filled, the code is 1, and it is said."""
    sandbox.fault("server_error", times=100, symbol="ETHUSDT")
    got = run(environment, *backfill("--json"))
    plan, *_, end = [json.loads(line) for line in got.stdout.splitlines()]

    assert got.returncode == 1
    assert [each["symbol"] for each in plan["series"]] == ["1000PEPE-USDT"]
    assert [(each["symbol"], each["code"]) for each in plan["failed"]] == [
        ("ETH-USDT", "upstream_unavailable")
    ]
    assert (end["complete"], end["done"]) == (False, 4 * 499)


@pytest.mark.parametrize("server", ["plain"], indirect=True)
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
    await services.metadata.series("binance", "perp", "ETH-USDT", "1d")
    database.execute("UPDATE series SET coverage = '{[2024-01-01, 2024-01-02)}'")
    found = {
        name: len(await read_holdings(services.database, HoldingFilter(symbols=[name])))
        for name in ("ETH-USDT", "ethusdt", "ETHU*", "ETH")
    }

    assert found == {"ETH-USDT": 1, "ethusdt": 1, "ETHU*": 1, "ETH": 0}


async def test_coverage_is_told_in_one_order(
    services: Services, database: psycopg.Connection
) -> None:
    """By the length of the interval, whichever series was asked for first."""
    for interval in ("1d", "1m", "1h"):
        await services.metadata.series("binance", "perp", "ETH-USDT", interval)
    database.execute("UPDATE series SET coverage = '{[2024-01-01, 2024-01-02)}'")
    holdings = await read_holdings(services.database, HoldingFilter())

    assert [each.interval for each in holdings] == ["1m", "1h", "1d"]


async def test_coverage_of_a_billion_candles_is_told_at_once(
    services: Services, database: psycopg.Connection
) -> None:
    """Five thousand series of two hundred thousand slots in ten parts, read from coverage."""
    database.execute("INSERT INTO exchanges (code, name) VALUES ('binance', 'Binance')")
    database.execute(_FILL, {"series": SERIES})
    begun = time.monotonic()
    holdings = await read_holdings(services.database, HoldingFilter())
    took = time.monotonic() - begun
    some = await read_holdings(services.database, HoldingFilter("binance", "perp", ["x1?-*"]))

    assert sum(each.slots for each in holdings) == 1_000_000_000
    assert {(each.slots, each.parts) for each in holdings} == {(200_000, 10)}
    assert len(holdings) == SERIES
    assert len(some) == 10
    assert took < 5  # a fifth of that where nobody else works
