"""Eight hostile connections of one reader beside another reader's hits and job."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from support.processes import environment_of, running_api, running_mdp
from support.sandbox import MINUTE_MS, Sandbox
from support.services import token_of

from api.tokens import issue_token
from mdp_core.settings import Settings

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SECONDS = float(os.environ.get("MDP_SOAK_SECONDS", "600"))
PATH = "/candles/binance/perp/{symbol}/{interval}"
START_MS = 1_709_251_200_000
HOUR_MS, YEAR_MS = 60 * MINUTE_MS, 365 * 1440 * MINUTE_MS
STORED_MINUTES = 10_000


@dataclass(slots=True)
class _Trial:
    """The service, and what both readers saw."""

    url: str
    symbols: list[str]
    job: int
    verdicts: Counter[str] = field(default_factory=Counter)
    hit_seconds: list[float] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    is_over: bool = False

    async def keep(self, token: str, do: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        """Do it again and again, as one connection."""
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60) as client:
            while not self.is_over:
                await do(client)

    def note(self, kind: str, answer: httpx.Response) -> None:
        """Count an answer by status and code."""
        is_error = answer.status_code >= 400
        self.verdicts[
            f"{kind} {answer.status_code} {answer.json()['code'] if is_error else ''}"
        ] += 1

    async def hit(self, client: httpx.AsyncClient) -> None:
        """Ask for a thousand stored candles, ten times a second at the most."""
        start = START_MS + random.randrange(STORED_MINUTES - 1000) * MINUTE_MS  # noqa: S311 - no secret
        begun = time.perf_counter()
        window = {"start": start, "end": start + 1000 * MINUTE_MS}
        answer = await client.get(_path("BTC-USDT"), params=window)
        self.hit_seconds.append(time.perf_counter() - begun)
        self.note("hit", answer)
        await asyncio.sleep(0.1)

    async def follow(self, client: httpx.AsyncClient) -> None:
        """Look how far the honest job has come."""
        job = (await client.get(f"/backfills/{self.job}")).json()
        self.progress.append(job["progress"]["covered"])
        await asyncio.sleep(2)

    async def ask_at_random(self, client: httpx.AsyncClient) -> None:
        """Ask for an hour somewhere in the past of some symbol."""
        start = START_MS - random.randrange(YEAR_MS) // HOUR_MS * HOUR_MS  # noqa: S311 - no secret
        window = {"start": start, "end": start + HOUR_MS}
        self.note("random", await client.get(_path(self._any()), params=window))

    async def ask_for_globs(self, client: httpx.AsyncClient) -> None:
        """Ask what 8,000 patterns would cost."""
        globs = [f"*{number}*" for number in range(8_000)]
        body = {"exchange": "binance", "market_type": "perp", "symbols": globs, "intervals": ["1m"]}
        self.note("globs", await client.post("/backfills", json={**body, "dry_run": True}))

    async def ask_anew(self, client: httpx.AsyncClient) -> None:
        """Ask for a series that was never asked for."""
        interval = random.choice(("3m", "5m", "15m", "30m", "2h", "4h", "8h", "12h"))  # noqa: S311
        path = _path(self._any(), interval)
        self.note("new series", await client.get(path, params={"limit": 5}))

    async def ask_for_years(self, client: httpx.AsyncClient) -> None:
        """Ask for a cold year of one of 60 symbols."""
        year = {"start": START_MS - 2 * YEAR_MS, "end": START_MS - YEAR_MS}
        symbol = random.choice(self.symbols[:60])  # noqa: S311 - no secret
        self.note("year", await client.get(_path(symbol), params=year))
        await asyncio.sleep(0.05)

    async def never_read(self, client: httpx.AsyncClient) -> None:
        """Ask for much, and read nothing of it for some seconds."""
        there = urlsplit(self.url)
        _, writer = await asyncio.open_connection(there.hostname, there.port)
        end = START_MS + STORED_MINUTES * MINUTE_MS
        lines = [f"GET {_path('BTC-USDT')}?start={START_MS}&end={end} HTTP/1.1", "Host: mdp"]
        lines.append(f"Authorization: {client.headers['Authorization']}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await asyncio.sleep(10)
        writer.close()
        self.verdicts["not read"] += 1

    def _any(self) -> str:
        return random.choice(self.symbols)  # noqa: S311 - no secret


async def test_reader_is_served_beside_a_hostile_one(settings: Settings, sandbox: Sandbox) -> None:
    """Its hits stay quick, its job gets on, memory is level; prints the figures."""
    # What is kept on purpose is kept small, so that it is full before the measurement begins.
    environment = {**environment_of(settings, sandbox), "MDP_BLOCK_MEMORY_MB": "8"}
    honest = token_of(settings)
    scopes = frozenset({"candles:read", "meta:read"})
    hostile = issue_token(settings, "hostile", scopes, timedelta(hours=1))
    with running_api(environment) as (process, url), running_mdp(environment, "syncer"):
        trial = await _prepared(url, honest)
        resident: list[float] = []
        attacks = [trial.ask_at_random, trial.ask_for_globs, trial.ask_anew, trial.ask_for_years]
        attacks += [trial.never_read] * 2 + [trial.ask_at_random, trial.ask_anew]
        tasks = [asyncio.create_task(trial.keep(hostile, attack)) for attack in attacks]
        tasks += [asyncio.create_task(trial.keep(honest, do)) for do in (trial.hit, trial.follow)]
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(SECONDS / 30)
            resident.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            sandbox.clear()  # its log grows
        trial.is_over = True
        await asyncio.gather(*tasks)
    hits = sorted(trial.hit_seconds)
    median, worst = (hits[int(len(hits) * part)] * 1000 for part in (0.5, 0.99))
    print(f"\n{SECONDS:.0f} s: {dict(sorted(trial.verdicts.items()))}")  # noqa: T201 - the figures
    print(f"hits: p50 {median:.1f} ms, p99 {worst:.1f} ms of {len(hits)}")  # noqa: T201
    print(f"job: {trial.progress[:: max(len(trial.progress) // 8, 1)]}")  # noqa: T201
    print(f"resident MB: {[round(megabytes) for megabytes in resident]}")  # noqa: T201

    assert {verdict for verdict in trial.verdicts if verdict.startswith("hit")} == {"hit 200 "}
    assert not any(" 500 " in verdict for verdict in trial.verdicts)
    assert trial.progress[-1] > trial.progress[0]
    assert median < 50
    assert worst < 500
    assert max(resident[-8:]) <= 1.15 * max(resident[8:16])


async def _prepared(url: str, token: str) -> _Trial:
    """Store what the hits ask for, and begin the honest job."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:
        window = {"start": START_MS, "end": START_MS + STORED_MINUTES * MINUTE_MS}
        assert (await client.get(_path("BTC-USDT"), params=window)).status_code == 200
        found = (await client.get("/meta/symbols", params={"exchange": "binance"})).json()[
            "symbols"
        ]
        symbols = [entry["symbol"] for entry in found if entry["active"]]
        body = {"exchange": "binance", "market_type": "perp", "symbols": ["ETH-USDT"]}
        year = {"intervals": ["1m"], "start": START_MS - YEAR_MS, "end": START_MS}
        while (opened := await client.post("/backfills", json={**body, **year})).status_code != 202:
            assert opened.json()["code"] == "syncer_unavailable", opened.text
            await asyncio.sleep(0.5)
    return _Trial(url, symbols, opened.json()["jobs"][0]["job"])


def _path(symbol: str, interval: str = "1m") -> str:
    return PATH.format(symbol=symbol, interval=interval)
