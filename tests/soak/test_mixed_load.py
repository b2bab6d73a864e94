"""Ten minutes of everything at once: what the process holds must stay level."""

import asyncio
import itertools
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
from support.processes import environment_of, running_api
from support.sandbox import MINUTE_MS, Sandbox
from support.services import token_of
from support.waiting import eventually

from mdp_core.settings import Settings

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SECONDS = float(os.environ.get("MDP_SOAK_SECONDS", "600"))
PATH = "/candles/binance/perp/{symbol}/1m"
PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
STORED = {"start": START_MS, "end": START_MS + 200 * PAGE_MS}

_BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'mdp-api' AND datname = current_database() AND state <> 'idle'
"""
_LOCKS = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (
    SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(slots=True)
class _Load:
    """The clients of one trial, and what they saw."""

    url: str
    headers: dict[str, str]
    verdicts: Counter[str] = field(default_factory=Counter)
    hit_seconds: list[float] = field(default_factory=list)
    is_over: bool = False

    async def keep(self, do: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        """Do it again and again, as one client."""
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=60) as client:
            while not self.is_over:
                await do(client)

    async def hit(self, client: httpx.AsyncClient) -> None:
        """Ask for a thousand candles that are stored."""
        start = STORED["start"] + random.randrange(90_000) * MINUTE_MS  # noqa: S311 - not a secret
        begun = time.perf_counter()
        window = {"start": start, "end": start + 1000 * MINUTE_MS}
        answer = await client.get(PATH.format(symbol="BTC-USDT"), params=window)
        self.hit_seconds.append(time.perf_counter() - begun)
        self.verdicts[f"hit {answer.status_code}"] += 1
        assert answer.json()["count"] == 1000

    def missing(self, symbol: str) -> Callable[[httpx.AsyncClient], Awaitable[None]]:
        """Make a client that goes through the history of one symbol, page by page."""
        pages = itertools.count(0)

        async def miss(client: httpx.AsyncClient) -> None:
            start = START_MS + next(pages) * PAGE_MS
            window = {"start": start, "end": start + PAGE_MS}
            answer = await client.get(PATH.format(symbol=symbol), params=window)
            self.verdicts[f"miss {answer.status_code}"] += 1
            if answer.status_code == 503:
                await asyncio.sleep(float(answer.headers["Retry-After"]))

        return miss

    async def err(self, client: httpx.AsyncClient) -> None:
        """Ask for what there is not, wrongly, and without a token."""
        symbol = f"NONE{random.randrange(10**9)}-USDT"  # noqa: S311 - not a secret
        unknown = await client.get(PATH.format(symbol=symbol))
        wrong = await client.get(PATH.format(symbol="BTC-USDT"), params={"start": "then"})
        closed = await client.get(PATH.format(symbol="BTC-USDT"), headers={"Authorization": ""})
        self.verdicts[f"{unknown.status_code} {wrong.status_code} {closed.status_code}"] += 1
        await asyncio.sleep(0.02)

    async def leave(self, client: httpx.AsyncClient) -> None:
        """Ask for much, and go away before it is there."""
        with suppress(httpx.TimeoutException):
            await client.get(
                PATH.format(symbol="BTC-USDT"),
                params=STORED,
                timeout=random.uniform(0.01, 0.3),  # noqa: S311 - not a secret
            )
        self.verdicts["left"] += 1

    async def read_slowly(self, client: httpx.AsyncClient) -> None:
        """Ask for much, read a little every second, and go away after some."""
        del client  # it reads all that comes
        there = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(there.hostname, there.port)
        path = f"{PATH.format(symbol='BTC-USDT')}?start={STORED['start']}&end={STORED['end']}"
        lines = [f"GET {path} HTTP/1.1", "Host: mdp"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        for _ in range(20):
            await reader.read(1024)
            if self.is_over:
                break
            await asyncio.sleep(1)
        writer.close()
        self.verdicts["read slowly"] += 1


async def test_memory_stays_level_under_mixed_load(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Resident memory after warm-up, connections, locks; prints the times of hits."""
    headers = {"Authorization": f"Bearer {token_of(settings)}"}
    # What is kept on purpose is kept small, so that it is full before the measurement begins.
    environment = {**environment_of(settings, sandbox), "MDP_BLOCK_MEMORY_MB": "32"}
    with running_api(environment) as (process, url):
        await _fill(url, headers)
        load = _Load(url, headers)
        resident: list[float] = []
        async with _running(load):
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                await asyncio.sleep(SECONDS / 60)
                resident.append(psutil.Process(process.pid).memory_info().rss / 1e6)
                sandbox.clear()  # its log grows
        await eventually(lambda: _number(database, _BUSY) + _number(database, _LOCKS) == 0)
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            answer = await client.get(PATH.format(symbol="BTC-USDT"))
    _report(load, resident)

    assert answer.status_code == 200
    assert {verdict for verdict in load.verdicts if verdict.startswith("hit")} == {"hit 200"}
    assert statistics.median(resident[-15:]) <= 1.1 * statistics.median(resident[15:30])


@asynccontextmanager
async def _running(load: _Load) -> AsyncGenerator[None]:
    does = [load.hit] * 6 + [load.err, load.leave, load.leave, load.read_slowly, load.read_slowly]
    does += [load.missing(symbol) for symbol in ("ETH-USDT", "SOL-USDT", "XRP-USDT")]
    clients = [asyncio.create_task(load.keep(do)) for do in does]
    try:
        yield
    finally:
        load.is_over = True
        await asyncio.gather(*clients)


async def _fill(url: str, headers: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:
        for first in range(0, 200, 50):
            start = START_MS + first * PAGE_MS
            window = {"start": start, "end": start + 50 * PAGE_MS}
            answer = await client.get(PATH.format(symbol="BTC-USDT"), params=window)
            assert answer.status_code == 200, answer.text


def _number(database: psycopg.Connection, query: str) -> int:
    row = database.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _report(load: _Load, resident: list[float]) -> None:
    hits = sorted(load.hit_seconds)
    p50, p99 = (hits[int(len(hits) * part)] * 1000 for part in (0.5, 0.99))
    print(f"\n{SECONDS:.0f} s: {dict(load.verdicts)}")  # noqa: T201 - the figures of the trial
    print(f"hits: p50 {p50:.1f} ms, p99 {p99:.1f} ms")  # noqa: T201 - the point of it
    print(f"resident MB: {[round(megabytes) for megabytes in resident[::5]]}")  # noqa: T201 - the point of it
