"""A process that is killed loses nothing that it claimed to have."""

import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import LiteralString

import psycopg
import pytest
from support.http import ask
from support.processes import environment_of, running_api
from support.sandbox import MINUTE_MS, Sandbox
from support.services import token_of
from support.waiting import wait_until

from mdp_core.settings import Settings

PATH = "/candles/binance/perp/ETH-USDT/1m"
SYMBOL = "ETHUSDT"
PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
PAGES = 30
WINDOW = {"start": START_MS, "end": START_MS + PAGES * PAGE_MS}

_COVERED_SLOTS = """
SELECT coalesce(sum(extract(epoch FROM upper(w) - lower(w)) / 60), 0)::int
FROM series, unnest(coverage) w
"""
_STORED = "SELECT count(*), count(*) FILTER (WHERE coverage @> time) FROM candles, series"


@pytest.fixture
def environment(settings: Settings, sandbox: Sandbox) -> Mapping[str, str]:
    """The variables with which a process joins the test's database and sandbox."""
    return environment_of(settings, sandbox)


def test_api_killed_in_the_middle_of_a_fill_claims_only_what_is_there(
    environment: Mapping[str, str],
    settings: Settings,
    sandbox: Sandbox,
    database: psycopg.Connection,
) -> None:
    """SIGKILL between pages, then another process: same request, complete answer."""
    headers = {"Authorization": f"Bearer {token_of(settings)}"}
    sandbox.settings(latency_ms=300)
    with running_api(environment) as (process, url), _asking(url, headers):
        wait_until(lambda: _number(database, _COVERED_SLOTS) >= 2 * 499)
        process.kill()
        process.wait()
    covered = _number(database, _COVERED_SLOTS)
    stored = database.execute(_STORED).fetchone()
    sandbox.settings(latency_ms=0)
    sandbox.clear()
    with running_api(environment) as (_, url):
        answer = ask(f"{url}{PATH}", params=WINDOW, headers=headers)

    assert 0 < covered < PAGES * 499
    assert stored == (covered, covered)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Cache"] == "partial"
    assert len(sandbox.candle_requests()) == PAGES - covered // 499
    assert answer.json()["candles"] == _truth(sandbox)


def test_api_stops_at_sigterm_with_nothing_left_open(
    environment: Mapping[str, str], settings: Settings, database: psycopg.Connection
) -> None:
    """A polite end: exit code 0 or the signal's, no connection stays in the database."""
    headers = {"Authorization": f"Bearer {token_of(settings)}"}
    with running_api(environment) as (process, url):
        ask(f"{url}{PATH}", params={"end": START_MS, "limit": 1}, headers=headers)
        process.send_signal(signal.SIGTERM)
        code = process.wait(15)

    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mdp-api'"
    assert code in {0, -signal.SIGTERM}
    wait_until(lambda: _number(database, query) == 0)


@contextmanager
def _asking(url: str, headers: Mapping[str, str]) -> Generator[None]:
    """Keep a request under way whose answer is never read."""
    asking = [sys.executable, "-c", _ASK, f"{url}{PATH}", headers["Authorization"]]
    arguments = [f"{name}={value}" for name, value in WINDOW.items()]
    with subprocess.Popen([*asking, *arguments], stderr=subprocess.DEVNULL) as client:  # noqa: S603 - our own program
        try:
            yield
        finally:
            client.kill()


_ASK = """
import sys, httpx
url, authorization, *parameters = sys.argv[1:]
params = dict(parameter.split("=") for parameter in parameters)
httpx.get(url, params=params, headers={"Authorization": authorization}, timeout=60)
"""


def _truth(sandbox: Sandbox) -> list[list[float]]:
    pages = range(WINDOW["start"], WINDOW["end"], PAGE_MS)
    return [row for at in pages for row in sandbox.candles(SYMBOL, "1m", at, at + PAGE_MS)]


def _number(database: psycopg.Connection, query: LiteralString) -> int:
    row = database.execute(query).fetchone()
    assert row is not None
    return int(row[0])
