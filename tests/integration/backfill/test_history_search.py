"""History starts: searched for by the hour at Coinbase, asked anew by backfills."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from support.asking import answer_to
from support.http import connected
from support.sandbox import Sandbox
from support.services import app_of, opened_services, token_of

from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.series.selection import Selection
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_BEGINS = "SELECT interval, history_begins FROM series"
_FALSE_START = """
UPDATE series SET history_begins = now() - interval '1 hour', history_witnesses = 0
"""
_PAGES_OF_200_DAYS = 16


@pytest.mark.parametrize(
    ("symbol", "first", "most"),
    [("AERO-USD", datetime(2024, 2, 12, tzinfo=UTC), 26), ("BTC-USD", None, 60)],
)
async def test_minutes_are_looked_for_only_around_the_first_hour(
    services: Services, sandbox: Sandbox, symbol: str, first: datetime | None, most: int
) -> None:
    """After days and 200 days of hours; Bitcoin's minutes are older than its hours.

    Some more pages of minutes are looked at where a sample before the first hour has a candle.
    """
    series = await services.resolver.series("coinbase", "spot", symbol, "1m")
    sandbox.clear()
    begins = await services.history_search.find(series)
    asked = Counter(
        (entry["params"]["granularity"], entry["params"]["start"])
        for entry in sandbox.requests()
        if entry["path"].endswith(f"/{symbol}/candles") and "start" in entry["params"]
    )
    hourly = await services.resolver.series("coinbase", "spot", symbol, "1h")

    assert begins is not None
    assert hourly.history_start is not None
    if first is None:
        assert begins == datetime(2015, 1, 20, 18, 13, tzinfo=UTC)
    else:
        assert first < hourly.history_start <= begins < hourly.history_start + timedelta(hours=1)
    assert sum(granularity == "60" for granularity, _ in asked) <= most
    # Empty ones twice, by another width, and a few canaries.
    hours = sum(granularity == "3600" for granularity, _ in asked)
    assert _PAGES_OF_200_DAYS <= hours <= 3 * _PAGES_OF_200_DAYS


@pytest.mark.parametrize("exchange", ["binance perp BTC-USDT", "hyperliquid perp BTC-USDC"])
@pytest.mark.parametrize("interval", ["1h", "1d"])
async def test_backfill_asks_anew_where_a_history_begins(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection, exchange: str, interval: str
) -> None:
    """A false history start would mean that all is done: the true one is planned from."""
    name, market, symbol = exchange.split()
    query = CandleQuery(name, market, symbol, interval, limit=1)
    body = {"exchange": name, "symbols": [symbol], "intervals": [interval], "dry_run": True}
    async with opened_services(settings, sandbox) as services:
        true = (await answer_to(services, query)).series.history_start
    database.execute(_FALSE_START)
    async with (
        opened_services(settings, sandbox) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        planned = (await client.post("/backfills", json=body)).json()
    begins = dict(database.execute(_BEGINS).fetchall())

    assert true is not None
    assert begins[interval] == true
    assert planned["jobs"][0]["start"] == to_ms(true)


async def test_backfill_from_after_the_beginning_asks_for_none(
    services: Services, sandbox: Sandbox
) -> None:
    """The history start is of no interest there."""
    query = CandleQuery("binance", "perp", "BTC-USDT", "1h", limit=1)
    await answer_to(services, query)
    names = await services.planning.names(Selection("binance", "perp", ("BTC-USDT",), ("1h",)))
    sandbox.clear()
    await services.planning.plan(names, datetime(2024, 5, 1, tzinfo=UTC), None)
    late = sandbox.probes()
    await services.planning.plan(names, datetime(2010, 5, 1, tzinfo=UTC), None)

    assert late == []
    assert len(sandbox.probes()) == 1
