"""Thirty SIGKILLs at random moments of fills, then one pass: none lost or false."""

import random
import subprocess
import threading
import time
from collections.abc import Mapping

import httpx
import psycopg
import pytest
from support.http import ask
from support.postgres import Server
from support.processes import environment_of, running_api
from support.sandbox import MINUTE_MS, Sandbox
from support.services import token_of

from db.upgrade import upgrade
from mdp_core.settings import Settings

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

KILLS = 30
PATHS = tuple(
    f"/candles/{item}"
    for item in (
        "binance/perp/BTC-USDT/1m",
        "hyperliquid/perp/BTC-USDC/1m",
        "coinbase/spot/BTC-USD/1m",
    )
)
_ROWS = """
SELECT native, time, open, high, low, close, volume, quote_volume, trades
FROM candles JOIN series ON series.id = series_id JOIN symbols ON symbols.id = symbol_id
ORDER BY exchange, native, time
"""
_COVERAGE = """
SELECT exchange, native, interval, coverage::text
FROM series JOIN symbols ON symbols.id = symbol_id ORDER BY 1, 2, 3
"""


def test_store_after_random_kills_equals_one_filled_in_peace(
    server: Server, settings: Settings, sandbox: Sandbox
) -> None:
    """Row by row and in coverage."""
    now = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
    window = {"start": now - 4_000 * MINUTE_MS, "end": now - 2_000 * MINUTE_MS}
    headers = {"Authorization": f"Bearer {token_of(settings)}"}
    sandbox.settings(latency_ms=80)
    for _ in range(KILLS):
        with running_api(environment_of(settings, sandbox)) as (process, url):
            _ask_and_kill(process, url, window, headers)
    _fill(settings, sandbox, window, headers)
    with server.clone() as peaceful:
        upgrade(peaceful)
        _fill(settings.model_copy(update={"database_url": peaceful}), sandbox, window, headers)
        for query in (_ROWS, _COVERAGE):
            assert _rows(settings.database_url, query) == _rows(peaceful, query)


def _ask_and_kill(
    process: subprocess.Popen[bytes], url: str, window: Mapping[str, int], headers: dict[str, str]
) -> None:
    def ask_in_vain(path: str, start: int) -> None:
        try:
            httpx.get(f"{url}{path}", params={**window, "start": start}, headers=headers, timeout=9)
        except httpx.HTTPError:
            return

    starts = [random.randrange(window["start"], window["end"], MINUTE_MS) for _ in PATHS]  # noqa: S311 - not a secret
    asking = [
        threading.Thread(target=ask_in_vain, args=entry)
        for entry in zip(PATHS, starts, strict=True)
    ]
    for thread in asking:
        thread.start()
    time.sleep(random.uniform(0.05, 1.2))  # noqa: S311 - not a secret
    process.kill()
    for thread in asking:
        thread.join()


def _fill(
    settings: Settings, sandbox: Sandbox, window: Mapping[str, int], headers: dict[str, str]
) -> None:
    with running_api(environment_of(settings, sandbox)) as (_, url):
        for path in PATHS:
            answer = ask(f"{url}{path}", params=window, headers=headers)
            assert answer.status_code == 200, answer.text


def _rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()
