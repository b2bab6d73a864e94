"""The syncer under the load that it is made for; minutes each."""

import asyncio
import itertools
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row
from support.processes import environment_of, running_api, running_mdp
from support.sandbox import Sandbox, running_sandbox
from support.services import opened_services, token_of
from support.waiting import eventually

from mdp_core.domain.clock import Clock
from mdp_core.settings import Settings
from scripts.sandbox.app import SandboxOptions
from syncer.app import running_syncer

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1800),
]

HOT = {"binance": 300, "hyperliquid": 40, "coinbase": 100}
MARKETS = {"binance": "perp", "hyperliquid": "perp", "coinbase": "spot"}
SETTLE_SECONDS = {"binance": 2, "hyperliquid": 5, "coinbase": 60}
# How often a new window is requested: so that what is left of the budget
# suffices for all that is hot.
COLD_SECONDS = {"binance": 1.0, "hyperliquid": 12.0, "coinbase": 2.0}
MINUTES = 3
MINUTE = timedelta(minutes=1)

Rows = Sequence[dict[str, Any]]

_SERIES = """
SELECT exchange, native, upper(coverage) AS until FROM series JOIN symbols ON symbols.id = symbol_id
WHERE interval = '1m' AND coverage <> '{}'
"""
_RUNS = """
SELECT split_part(job, ' ', 2) AS exchange, due_at, extract(epoch FROM ended_at - due_at)::float8
       AS seconds, rows, waiting, error
FROM job_runs WHERE job LIKE 'warm%%' AND ended_at > now() - %(lasts)s
ORDER BY exchange, due_at
"""


async def test_top_of_the_minute_with_many_hot_series(
    settings: Settings, database: psycopg.Connection
) -> None:
    """300, 40 and 100 one-minute series: warm within the minute, within the limits.

    The sandbox's limits are on and the service may use all of them: a request beyond them is
    refused. Others ask another process meanwhile, and are answered as fast as at other times.
    """
    look = database.cursor(row_factory=dict_row)
    headers = {"Authorization": f"Bearer {token_of(settings)}"}
    with running_sandbox(SandboxOptions()) as sandbox:
        sandbox.settings(limits="on")
        symbols = _chosen(sandbox)
        hot = " ".join(f"{name}:{','.join(symbols[name])}:1m" for name in HOT)
        environment = {
            **environment_of(settings, sandbox),
            "MDP_HOT": hot,
            "MDP_LOG_LEVEL": "WARNING",
        }
        with running_api(environment) as (_, url), running_mdp(environment, "syncer"):
            await eventually(lambda: _are_all_there(look), seconds=600)
            await asyncio.sleep(60 - time.time() % 60 + 50)
            sandbox.clear()
            client = httpx.AsyncClient(base_url=url, headers=headers, timeout=60)
            async with client, _asking(client, symbols) as took:
                await asyncio.sleep(MINUTES * 60)
            runs = look.execute(_RUNS, {"lasts": MINUTES * MINUTE}).fetchall()
            series = look.execute(_SERIES).fetchall()
            requests = sandbox.requests()
        sandbox.settings(limits="off")
        _report(runs, requests, took)
        behind = [stored for stored in series if stored["until"] < _expected(sandbox, stored, runs)]

    assert Counter(stored["exchange"] for stored in series) == HOT
    assert behind == []
    assert [request for request in requests if request["status"] in {429, 418}] == []
    assert {run["exchange"] for run in runs} == set(HOT)
    assert all((run["error"], run["waiting"]) == (None, 0) for run in runs)
    assert all(run["seconds"] < SETTLE_SECONDS[run["exchange"]] + 60 for run in runs)
    for name in ("binance", "hyperliquid"):
        assert max(Counter(entry[:2] for entry in _warmed(requests, name)).values()) == 1
    assert set(took) == {f"{what} {name}" for what in ("cold", "warm") for name in HOT}
    assert all(max(seconds) < 5 for seconds in took.values())


def _chosen(sandbox: Sandbox) -> dict[str, list[str]]:
    """Choose as many symbols as wanted; not PURR, whose quiet minutes come late."""
    listed = {
        "binance": [
            entry["symbol"]
            for entry in sandbox.ask("/binance/fapi/v1/exchangeInfo")["symbols"]
            if entry["status"] == "TRADING" and entry["contractType"] == "PERPETUAL"
        ],
        "hyperliquid": [
            entry["name"]
            for entry in sandbox.post("/hyperliquid/info", {"type": "meta"})["universe"]
            if not entry.get("isDelisted") and entry["name"] != "PURR"
        ],
        "coinbase": [
            entry["id"]
            for entry in sandbox.ask("/coinbase/products")
            if entry["status"] == "online"
        ],
    }
    return {name: listed[name][:most] for name, most in HOT.items()}


def _are_all_there(look: psycopg.Cursor[dict[str, Any]]) -> bool:
    """Tell whether every series has been asked for lately."""
    series = look.execute(_SERIES).fetchall()
    is_fresh = all(stored["until"] > Clock()() - 8 * MINUTE for stored in series)
    return is_fresh and Counter(stored["exchange"] for stored in series) == HOT


def _expected(sandbox: Sandbox, series: Mapping[str, Any], runs: Rows) -> datetime:
    """Give the time the last run has to reach: its end, or the first late slot.

    Where slots may be empty, that is the first absent candle of the last four minutes.
    """
    due: datetime = max(run["due_at"] for run in runs if run["exchange"] == series["exchange"])
    if series["exchange"] != "coinbase":
        return due
    first = due - 4 * MINUTE
    params = {"granularity": "60", "start": first.isoformat(), "end": due.isoformat()}
    rows = sandbox.ask(f"/coinbase/products/{series['native']}/candles", params)
    there = {row[0] for row in rows}
    slots = (first + place * MINUTE for place in range(4))
    return next((slot for slot in slots if slot.timestamp() not in there), due)


@asynccontextmanager
async def _asking(
    client: httpx.AsyncClient, symbols: Mapping[str, list[str]]
) -> AsyncGenerator[dict[str, list[float]]]:
    """Ask for stored and for new windows while the context is open."""
    took: dict[str, list[float]] = defaultdict(list)

    async def ask(what: str, exchange: str, every: float) -> None:
        # In an illiquid market fifty candles lie in many pages.
        for symbol in itertools.cycle(entry for entry in symbols[exchange] if entry != "WAXL-USD"):
            begun = time.perf_counter()
            path = f"/candles/{exchange}/{MARKETS[exchange]}/{symbol}/"
            older = {"end": int(time.time() - 7200) * 1000, "limit": 50}
            answer = await client.get(path + ("1m" if what == "warm" else "5m"), params=older)
            verdict = "" if answer.status_code == 200 else f" {answer.text}"
            took[f"{what} {exchange}{verdict}"].append(time.perf_counter() - begun)
            await asyncio.sleep(every)

    asking = [ask("warm", name, 0.25) for name in HOT]
    # So that what is left of the budget suffices for all that is hot.
    asking += [ask("cold", name, every) for name, every in COLD_SECONDS.items()]
    tasks = [asyncio.create_task(coroutine) for coroutine in asking]
    yield took
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [outcome for outcome in done if not isinstance(outcome, asyncio.CancelledError)] == []


def _warmed(requests: Rows, exchange: str) -> list[tuple[str, int, int]]:
    """Give symbol, open time, moment (epoch ms) of requests for a newest 1m candle."""
    asked = [
        (*_newest_asked(request), request["at"])
        for request in requests
        if request["exchange"] == exchange
    ]
    return [request for request in asked if request[1] > request[2] - 3 * 60_000]


def _newest_asked(request: Mapping[str, Any]) -> tuple[str, int]:
    """Give symbol and last open time (epoch ms) of a 1m request; 0 of any other."""
    params = request["params"]
    req: Mapping[str, Any] = params.get("req", {})
    if params.get("interval") == "1m" and "endTime" in params:
        return params["symbol"], int(params["endTime"]) // 60_000 * 60_000
    if req.get("interval") == "1m":
        return req["coin"], req["endTime"] // 60_000 * 60_000
    if params.get("granularity") == "60":
        return request["path"], int(datetime.fromisoformat(params["end"]).timestamp()) * 1000
    return "", 0


def _report(runs: Rows, requests: Rows, took: Mapping[str, list[float]]) -> None:
    """Print the figures of the trial."""
    lines = [
        f"{len(requests)} requests: {dict(Counter(request['status'] for request in requests))}"
    ]
    for run in runs:
        after = run["seconds"] - SETTLE_SECONDS[run["exchange"]]
        lines.append(f"{run['exchange']} due {run['due_at']:%T}: done {after:.1f} s after settling")
    for name in HOT:
        for opened, asked in sorted(_by_candle(_warmed(requests, name)).items()):
            first, last = ((at - opened) / 1000 - 60 for at in (min(asked), max(asked)))
            lines.append(f"{name}: {len(asked)} requests, {first:.1f} to {last:.1f} s after close")
    for what, seconds in sorted(took.items()):
        median, most = statistics.median(seconds), max(seconds)
        lines.append(f"{what}: {len(seconds)} times, median {median:.3f} s, most {most:.3f} s")
    print("\n".join(["", *lines]))  # noqa: T201 - the point of it


def _by_candle(warmed: list[tuple[str, int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for _, opened, at in warmed:
        found[opened].append(at)
    return found


async def test_keeper_loses_nothing_in_a_week(
    settings: Settings, database: psycopg.Connection
) -> None:
    """Two coins, two intervals; the exchange forgets minutes after three days."""
    clock = Clock.starting_at(Clock()(), 5000.0)
    begun, week = clock(), timedelta(days=7)
    changed = settings.model_copy(update={"clock": clock, "keep": "hyperliquid:BTC,ETH:1m,1h"})
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        async with opened_services(changed, sandbox) as services, running_syncer(services):
            await eventually(lambda: clock() > begun + 1.3 * week, seconds=600)
    query = "SELECT coverage @> tstzrange(%s, %s) FROM series WHERE interval = '1m'"

    assert database.execute(query, [begun, begun + week]).fetchall() == [(True,), (True,)]
    assert database.execute("SELECT FROM job_runs WHERE error IS NOT NULL").fetchall() == []
