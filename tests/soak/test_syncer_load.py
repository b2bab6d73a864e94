"""The syncer under the load that it is made for; minutes each."""

import asyncio
import time
from datetime import datetime, timedelta

import psycopg
import pytest
from conftest import eventually, opened_services, running_sandbox

from mdp_core.answer import CandleQuery
from mdp_core.clock import Clock
from mdp_core.errors import MdpError
from mdp_core.model import Symbol
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions
from syncer.app import running_syncer

pytestmark = [
    pytest.mark.soak,
    pytest.mark.parametrize("server", ["plain"], indirect=True),
]

# At the top of an hour candles of all these intervals close at once.
HOT = {
    "binance": (300, ("1m",)),
    "hyperliquid": (20, ("1m", "3m")),
    "coinbase": (20, ("1m", "5m", "15m", "1h", "6h")),
}
# Within the minute after they have settled.
WARM_SECONDS = {"binance": 62, "hyperliquid": 65, "coinbase": 120}
PREPARATION = timedelta(minutes=7)


async def test_top_of_an_hour_with_many_hot_series(
    settings: Settings, database: psycopg.Connection
) -> None:
    """440 series whose candles close at once: warm within the minute, within the limits.

    The sandbox's limits are on: whoever exceeds them is refused, which would stand in the runs.
    Others ask meanwhile, and are answered as fast as before.
    """
    clock = Clock.starting_at(datetime.fromisoformat("2026-03-01T12:00Z") - PREPARATION)
    with running_sandbox(SandboxOptions(clock=clock)) as sandbox:
        sandbox.settings(limits="on")
        async with opened_services(settings.model_copy(update={"clock": clock}), sandbox) as opened:
            hot = [
                f"{name}:{await _symbols(opened, name)}:{','.join(HOT[name][1])}" for name in HOT
            ]
        changed = settings.model_copy(update={"clock": clock, "hot": " ".join(hot)})
        async with opened_services(changed, sandbox) as services, running_syncer(services):
            calm = await _asked_until(services, clock, "2026-03-01T11:59:55Z")
            busy = await _asked_until(services, clock, "2026-03-01T12:01:55Z")
            behind = database.execute(_BEHIND).fetchall()
        refused = [each for each in sandbox.requests() if each["status"] in (429, 418)]
    runs = database.execute(_RUNS).fetchall()
    print(f"calm {calm}\nbusy {busy}\nruns {runs}\nrefused {len(refused)}")  # noqa: T201

    assert refused == []
    assert behind == []
    assert len(runs) >= 6
    assert all(
        seconds < WARM_SECONDS[job.split()[1]] and error is None and waiting == 0
        for job, _, seconds, waiting, error in runs
    )
    assert busy[1] < 20 * max(calm[1], 0.05)


_BEHIND = """
SELECT s.exchange, s.name, interval, upper(coverage)
FROM series JOIN symbols s ON s.id = symbol_id
WHERE upper(coverage) < '2026-03-01T12:00Z'::timestamptz - CASE interval
    WHEN '6h' THEN interval '6 hours' ELSE interval '0' END
  -- Where nobody need have traded an absent candle may be late for five minutes.
  - CASE exchange WHEN 'coinbase' THEN interval '7 minutes' ELSE interval '0' END
"""
_RUNS = """
SELECT job, to_char(due_at, 'HH24:MI'), extract(epoch FROM ended_at - due_at)::float8,
       waiting, error
FROM (SELECT *, row_number() OVER (PARTITION BY job ORDER BY due_at DESC) AS place
      FROM job_runs WHERE job LIKE 'warm%' AND ended_at IS NOT NULL) AS latest
WHERE place <= 2 ORDER BY job, due_at
"""


async def _symbols(services: Services, exchange: str) -> str:
    (adapter,) = services.metadata.markets(exchange, None)
    symbols: list[Symbol] = [
        each for each in await services.metadata.symbols(adapter) if each.active
    ]
    return ",".join(each.name for each in symbols[: HOT[exchange][0]])


async def _asked_until(services: Services, clock: Clock, until: str) -> tuple[float, float]:
    """Ask for newest candles, some cold, until then; give the median and the 99th part's time."""
    took: list[float] = []
    end = datetime.fromisoformat(until)
    while clock() < end:
        for interval in ("1m", "5m"):
            begun = time.monotonic()
            try:
                await services.candles.get(
                    CandleQuery("binance", "perp", "ETH-USDT", interval, limit=500)
                )
                took.append(time.monotonic() - begun)
            except MdpError:
                took.append(999.0)
        await asyncio.sleep(0.2)
    took.sort()
    return round(took[len(took) // 2], 4), round(took[len(took) * 99 // 100], 4)


async def test_keeper_loses_nothing_in_a_week(
    settings: Settings, database: psycopg.Connection
) -> None:
    """Two coins and two intervals; the exchange forgets a minute's candle after three days."""
    clock = Clock.starting_at(Clock()(), 5000.0)
    begun, week = clock(), timedelta(days=7)
    changed = settings.model_copy(update={"clock": clock, "keep": "hyperliquid:BTC,ETH:1m,1h"})
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        async with opened_services(changed, sandbox) as services, running_syncer(services):
            await eventually(lambda: clock() > begun + 1.3 * week, seconds=600)
    query = "SELECT coverage @> tstzrange(%s, %s) FROM series WHERE interval = '1m'"

    assert database.execute(query, [begun, begun + week]).fetchall() == [(True,), (True,)]
    assert database.execute("SELECT FROM job_runs WHERE error IS NOT NULL").fetchall() == []
