"""A year of three symbols, killed repeatedly; takes minutes, for the budget holds."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from support.places import PROJECT
from support.postgres import Server
from support.processes import environment_of, running_mdp
from support.sandbox import MINUTE_MS, Sandbox

from db.upgrade import upgrade
from mdp_core.settings import Settings

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3000),
]

SYMBOLS = "BTC-USDT,ETH-USDT,SOL-USDT"
YEAR = ("--start", "2024-01-01", "--end", "2025-01-01")
# Pages of an exchange that a process asks for at once.
IN_FLIGHT = 8

_CONTENT = """
SELECT symbol, interval, count(*), sum(hashtextextended(candle_rows::text, 0)) FROM candle_rows
GROUP BY symbol, interval ORDER BY symbol, interval
"""
_COVERAGE = """
SELECT native, coverage::text FROM series JOIN symbols ON symbols.id = symbol_id ORDER BY native
"""


def test_year_that_was_killed_at_random_equals_one_filled_in_peace(
    server: Server, settings: Settings, sandbox: Sandbox
) -> None:
    """As few pages as possible, plus those in flight at kills; spent as announced.

    The dry run's weight is compared with what the exchange says was used of its limit.
    """
    environment = environment_of(settings, sandbox)
    planned = _plan(environment)
    sandbox.clear()
    begun, kills = time.monotonic(), _kill_until_done(environment)
    print(f"killed {kills} times, {time.monotonic() - begun:.0f} s in all")  # noqa: T201 - the point of it
    asked = _asked(sandbox)
    _report("killed", asked)
    assert kills > 5
    assert len(asked) == planned["pages"]
    assert sum(asked.values()) <= planned["pages"] + kills * IN_FLIGHT
    assert _plan(environment) | {"eta_s": 0.0} == {
        "candles": 0,
        "pages": 0,
        "weight": 0.0,
        "eta_s": 0.0,
        "cached_share": 1.0,
    }

    with server.clone() as peaceful:
        upgrade(peaceful)
        sandbox.clear()
        begun = time.monotonic()
        with running_mdp({**environment, "DATABASE_URL": peaceful}, *_backfill()) as process:
            assert process.wait(1200) == 0
        took = time.monotonic() - begun
        undisturbed = _asked(sandbox)
        _report("undisturbed", undisturbed)
        print(f"{planned} {took:.0f} s, {planned['candles'] / took:.0f} candles/s")  # noqa: T201 - the point of it
        assert sum(undisturbed.values()) == planned["pages"]
        assert sum(map(_weight, sandbox.candle_requests())) == planned["weight"]
        for query in (_CONTENT, _COVERAGE):
            assert _rows(settings.database_url, query) == _rows(peaceful, query)


def _kill_until_done(environment: Mapping[str, str]) -> int:
    """Run it again and again, each time for some seconds, until it ends by itself."""
    kills = 0
    while True:
        with running_mdp(environment, *_backfill()) as process:
            try:
                assert process.wait(random.uniform(3, 20)) == 0  # noqa: S311 - not a secret
            except subprocess.TimeoutExpired:
                kills += 1
            else:
                return kills


def _plan(environment: Mapping[str, str]) -> dict[str, Any]:
    """Give the sums of a dry run."""
    command = [sys.executable, "-m", "scripts.cli.entry", *_backfill("--dry-run", "--json")]
    done = subprocess.run(  # noqa: S603 - our own program
        command,
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[0])["estimate"]


def _backfill(*more: str) -> list[str]:
    return ["backfill", "binance", "perp", SYMBOLS, "1m", *YEAR, *more]


def _asked(sandbox: Sandbox) -> Counter[tuple[Any, Any]]:
    """Count how often each page was asked for."""
    size = 499 * MINUTE_MS
    return Counter(
        (request["params"]["symbol"], int(request["params"]["startTime"]) // size)
        for request in sandbox.candle_requests()
    )


def _weight(request: Mapping[str, Any]) -> int:
    """Weigh a request as Binance does. Source: its documentation of klines."""
    limit = int(request["params"]["limit"])
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


def _report(what: str, asked: Counter[tuple[Any, Any]]) -> None:
    print(f"{what}: {len(asked)} pages, {sum(asked.values())} requests")  # noqa: T201 - the point of it


def _rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()
