"""Rows with a null number: a fact where none is needed, else it costs the slot."""

import psycopg
import pytest
from support.sandbox import MINUTE_MS, Sandbox
from support.services import serving

from mdp_core.domain.clock import to_ms
from mdp_core.settings import Settings

HOUR_MS = 60 * MINUTE_MS
PATHS = {
    "binance": "/candles/binance/perp/SOL-USDT/1h",
    "hyperliquid": "/candles/hyperliquid/perp/SOL-USDC/1h",
    "coinbase": "/candles/coinbase/spot/SOL-USD/1h",
}
PAGE_SLOTS = {"binance": 499, "hyperliquid": 500, "coinbase": 300}
NEEDED = [(exchange, field) for exchange in PATHS for field in ("open", "low", "volume")]
OPTIONAL = [("binance", "quote_volume"), ("binance", "trades"), ("hyperliquid", "trades")]


def page_of(settings: Settings, exchange: str) -> dict[str, int]:
    """Give the window of a page that ended a while ago."""
    length = PAGE_SLOTS[exchange] * HOUR_MS
    start = (to_ms(settings.clock()) // length - 2) * length
    return {"start": start, "end": start + length}


@pytest.mark.parametrize(("exchange", "field"), OPTIONAL)
async def test_null_where_no_number_is_needed_is_a_null(
    exchange: str, field: str, settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """The candle is stored and served without it."""
    window = page_of(settings, exchange)
    async with serving(settings, sandbox) as client:
        await client.get(PATHS[exchange], params={"limit": 1})  # so that the fault hits the page
        sandbox.fault("null_field", exchange=exchange, field=field)
        answer = await client.get(PATHS[exchange], params={**window, "fields": f"close,{field}"})

    assert answer.status_code == 200, answer.text
    values = [row[2] for row in answer.json()["candles"]]
    assert len(values) == PAGE_SLOTS[exchange]
    assert values.count(None) == 1
    assert database.execute("SELECT count(*) FROM rejected_rows").fetchone() == (0,)


@pytest.mark.parametrize(("exchange", "field"), NEEDED)
async def test_null_where_a_number_is_needed_costs_its_slot(
    exchange: str, field: str, settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """One question, one slot: its neighbours are stored, the next request heals it."""
    page = page_of(settings, exchange)
    async with serving(settings, sandbox) as client:
        await client.get(PATHS[exchange], params={"limit": 1})
        sandbox.clear()
        sandbox.fault("null_field", exchange=exchange, field=field)
        failed = await client.get(PATHS[exchange], params=page)
        asked = [entry for entry in sandbox.requests() if entry["fault"]]
        rejected = database.execute("SELECT slot FROM rejected_rows").fetchall()
        healed = await client.get(PATHS[exchange], params=page)

    assert (failed.status_code, failed.json()["code"]) == (502, "upstream_bad_data")
    assert failed.json()["times"] == [to_ms(slot) for (slot,) in rejected]
    assert (len(rejected), len(asked)) == (1, 1)
    assert healed.status_code == 200, healed.text
    assert healed.json()["complete"] is True
