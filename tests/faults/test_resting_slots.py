"""Slots with wrong rows are asked for again on a schedule."""

from collections.abc import AsyncGenerator

import httpx
import psycopg
import pytest
from support.sandbox import MINUTE_MS, Sandbox
from support.services import serving

from mdp_core.domain.clock import from_ms
from mdp_core.settings import Settings

PATH = "/candles/binance/perp/SOL-USDT/1m"
PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
WINDOW = {"start": START_MS, "end": START_MS + PAGE_MS}
MIDDLE_MS = START_MS + 249 * MINUTE_MS
HOUR = 3600

_AGE = """
UPDATE rejected_rows SET last_seen = last_seen - %s * interval '1 second' RETURNING times_seen
"""


@pytest.fixture
async def client(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[httpx.AsyncClient]:
    async with serving(settings, sandbox) as connected_client:
        await connected_client.get(PATH, params={"end": START_MS, "limit": 1})
        sandbox.clear()
        yield connected_client


async def asked(client: httpx.AsyncClient, sandbox: Sandbox) -> list[int]:
    """Ask for the window; give the opens for which the exchange was asked meanwhile."""
    sandbox.clear()
    answer = await client.get(PATH, params=WINDOW)
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_bad_data")
    assert answer.json()["times"] == [MIDDLE_MS]
    return [int(entry["params"]["startTime"]) for entry in sandbox.candle_requests()]


def pass_time(database: psycopg.Connection, seconds: float) -> int:
    """Let so much time pass since the row was seen last; tell how often it was seen."""
    row = database.execute(_AGE, [seconds]).fetchone()
    assert row is not None
    return int(row[0])


async def test_wrong_slot_is_asked_for_at_once_then_after_a_minute_doubling_up_to_an_hour(
    client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """While it rests the answer is the same error, at no cost; other slots are served."""
    sandbox.fault("ohlc_violation", times=100)
    first, second, third = [await asked(client, sandbox) for _ in range(3)]
    pauses: list[tuple[int, list[int], list[int]]] = []
    for expected in (60, 120, 240, 480, 960, 1920, HOUR, HOUR):
        seen = pass_time(database, expected - 20)
        early = await asked(client, sandbox)
        pass_time(database, 21)
        pauses.append((seen, early, await asked(client, sandbox)))

    assert (first, second, third) == ([START_MS], [MIDDLE_MS], [])
    assert pauses == [(seen, [], [MIDDLE_MS]) for seen in range(2, 10)]


async def test_resting_slot_is_named_by_partial_answers_and_healed_when_its_rest_is_over(
    client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """498 candles and the slot's name, without a request; then all 499."""
    sandbox.fault("off_grid", times=2)
    for _ in range(2):
        await asked(client, sandbox)
    sandbox.clear()
    partial = (await client.get(PATH, params={**WINDOW, "partial": True})).json()
    while_resting = sandbox.candle_requests()
    pass_time(database, 61)
    healed = (await client.get(PATH, params=WINDOW)).json()

    assert partial["missing"] == [
        {"start": MIDDLE_MS, "end": MIDDLE_MS + MINUTE_MS, "reason": "upstream_bad_data"}
    ]
    assert (partial["count"], while_resting) == (498, [])
    assert healed["candles"] == sandbox.candles("SOLUSDT", "1m", WINDOW["start"], WINDOW["end"])


async def test_resting_slot_does_not_keep_its_page_from_being_filled(
    client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """A candle beside it that coverage lacks is asked for, and it alone."""
    sandbox.fault("ohlc_violation", times=2)
    for _ in range(2):
        await asked(client, sandbox)
    gap = f"{{[{from_ms(MIDDLE_MS + MINUTE_MS)}, {from_ms(MIDDLE_MS + 2 * MINUTE_MS)})}}"
    database.execute("DELETE FROM candles WHERE time <@ %s::tstzmultirange", [gap])
    database.execute("UPDATE series SET coverage = coverage - %s::tstzmultirange", [gap])
    sandbox.clear()
    beside = {"start": MIDDLE_MS + MINUTE_MS, "end": MIDDLE_MS + 3 * MINUTE_MS}
    answer = await client.get(PATH, params=beside)
    requests = [
        (int(entry["params"]["startTime"]), int(entry["params"]["limit"]))
        for entry in sandbox.candle_requests()
    ]

    assert answer.json()["candles"] == sandbox.candles("SOLUSDT", "1m", *beside.values())
    assert requests == [(MIDDLE_MS + MINUTE_MS, 1)]
