"""Faults of an exchange are overcome, reported and forgotten."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx
import psycopg
import pytest
import stamina
from support.sandbox import MINUTE_MS, Sandbox
from support.services import serving

from mdp_core.settings import Settings

PATH = "/candles/binance/perp/SOL-USDT/1m"
SYMBOL = "SOLUSDT"
PAGE_MS = 499 * MINUTE_MS
# A whole page of March 2024, so that every fault hits exactly this request.
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
WINDOW = {"start": START_MS, "end": START_MS + PAGE_MS}
# Every fault that spoils a page spoils its middle row.
MIDDLE_MS = START_MS + 249 * MINUTE_MS

_ROWS = """
SELECT (extract(epoch FROM time) * 1000)::bigint, open, high, low, close, volume
FROM candles WHERE time >= to_timestamp(%s) AND time < to_timestamp(%s) ORDER BY time
"""
_OUTSIDE_COVERAGE = """
SELECT count(*) FROM candles JOIN series ON series.id = series_id WHERE NOT coverage @> time
"""
_COVERED = """
SELECT (extract(epoch FROM lower(span)) * 1000)::bigint,
       (extract(epoch FROM upper(span)) * 1000)::bigint
FROM series, unnest(coverage * tstzmultirange(tstzrange(to_timestamp(%s), to_timestamp(%s)))) span
"""


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts() -> Generator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@pytest.fixture
async def client(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of services that don't wait long, and know the series already."""
    impatient = settings.model_copy(
        update={
            "attempt_timeout_seconds": 0.7,
            "fetch_deadline_seconds": 5.0,
            "request_deadline_seconds": 6.0,
        }
    )
    before = {"end": START_MS - PAGE_MS, "limit": 1}
    async with serving(impatient, sandbox) as connected_client:
        # On a busy machine it may fail; what is on its way then must not meet a test's fault.
        while (await connected_client.get(PATH, params=before)).status_code != 200:  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(0.1)
        sandbox.clear()
        yield connected_client


@pytest.mark.parametrize("fault", ["rate_limited", "banned", "hang"])
async def test_passing_fault_is_overcome(
    client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection, fault: str
) -> None:
    """A fault that hits one request costs time, never a candle."""
    sandbox.fault(fault)
    answer = await client.get(PATH, params=WINDOW)
    faults = [entry["fault"] for entry in sandbox.candle_requests()]

    assert faults[0] == fault
    assert answer.status_code == 200, answer.text
    _assert_complete(answer, sandbox)
    _assert_stored(database, sandbox, WINDOW)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("server_error", (503, "upstream_unavailable")),
        ("null_body", (502, "upstream_bad_data")),
    ],
)
async def test_lasting_fault_is_an_error_and_the_next_request_is_right(
    client: httpx.AsyncClient,
    sandbox: Sandbox,
    database: psycopg.Connection,
    fault: str,
    expected: tuple[int, str],
) -> None:
    """Every attempt fails: an error, nothing stored; all is, without the fault."""
    sandbox.fault(fault, times=4)
    failed = await client.get(PATH, params=WINDOW)
    attempts = [entry["fault"] for entry in sandbox.candle_requests()]
    covered = _covered(database, WINDOW)
    again = await client.get(PATH, params=WINDOW)

    assert (failed.status_code, failed.json()["code"]) == expected
    assert ("Retry-After" in failed.headers) == (failed.status_code == 503)
    assert attempts == [fault] * 4
    assert covered == []
    _assert_complete(again, sandbox)
    _assert_stored(database, sandbox, WINDOW)


@pytest.mark.parametrize("fault", ["rate_limited", "banned"])
async def test_refusal_is_passed_on_with_its_time_and_obeyed(
    client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection, fault: str
) -> None:
    """503 with the exchange's own Retry-After; until then no process asks again."""
    sandbox.fault(fault, retry_after=6)
    failed = await client.get(PATH, params=WINDOW)
    again = await client.get(PATH, params=WINDOW)
    health = (await client.get("/health")).json()

    for answer in (failed, again):
        assert (answer.status_code, answer.json()["code"]) == (503, "rate_limited")
        assert 4 <= int(answer.headers["Retry-After"]) <= 6
    assert [entry["fault"] for entry in sandbox.candle_requests()] == [fault]
    assert _covered(database, WINDOW) == []
    (block,) = health["exchanges"]["binance"]["blocked"]
    assert block["why"] == {"rate_limited": "HTTP 429", "banned": "HTTP 418"}[fault]


@pytest.mark.parametrize("fault", ["off_grid", "ohlc_violation", "conflicting_rows"])
async def test_wrong_row_costs_its_slot_only_and_is_asked_for_again(
    client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection, fault: str
) -> None:
    """502 names the row; good ones are stored, the bad one is recorded and refetched."""
    sandbox.fault(fault)
    failed = await client.get(PATH, params=WINDOW)
    rejected = database.execute("SELECT slot, reason FROM rejected_rows").fetchall()
    covered = _covered(database, WINDOW)
    stored = _stored(database, WINDOW)
    sandbox.clear()
    again = await client.get(PATH, params=WINDOW)
    asked = sandbox.candle_requests()

    assert (failed.status_code, failed.json()["code"]) == (502, "upstream_bad_data")
    assert failed.json()["times"] == [MIDDLE_MS]
    assert [(int(slot.timestamp()) * 1000, bool(why)) for slot, why in rejected] == [
        (MIDDLE_MS, True)
    ]
    assert covered == [(START_MS, MIDDLE_MS), (MIDDLE_MS + MINUTE_MS, WINDOW["end"])]
    assert len(stored) == 498
    _assert_complete(again, sandbox)
    assert [int(entry["params"]["startTime"]) for entry in asked] == [MIDDLE_MS]
    _assert_stored(database, sandbox, WINDOW)


async def test_failed_page_leaves_the_others_stored(
    client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """One of three pages can't be had: an error; the next request asks for it alone."""
    window = {"start": START_MS, "end": START_MS + 3 * PAGE_MS}
    sandbox.fault("server_error", times=4, startTime=START_MS + PAGE_MS)
    failed = await client.get(PATH, params=window)
    sandbox.clear()
    again = await client.get(PATH, params=window)
    asked = sandbox.candle_requests()

    assert failed.status_code == 503
    assert (again.status_code, again.headers["X-Cache"]) == (200, "partial")
    assert [int(entry["params"]["startTime"]) for entry in asked] == [START_MS + PAGE_MS]
    assert again.json()["count"] == 3 * 499
    _assert_stored(database, sandbox, window)


async def test_partial_answer_names_what_is_missing_and_is_never_cached(
    client: httpx.AsyncClient, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Stored rows, `complete: false`, and window and reason of the missing ones."""
    hole = (START_MS + PAGE_MS, START_MS + 2 * PAGE_MS)
    window = {"start": START_MS, "end": START_MS + 3 * PAGE_MS}
    sandbox.fault("server_error", times=1000, startTime=hole[0])
    partial = await client.get(PATH, params={**window, "partial": True})
    body = partial.json()
    sandbox.clear_faults()
    whole = await client.get(PATH, params={**window, "partial": True})

    assert partial.status_code == 200
    assert body["complete"] is False
    assert body["missing"] == [{"start": hole[0], "end": hole[1], "reason": "upstream_unavailable"}]
    assert [row[0] for row in body["candles"]] == [
        *range(window["start"], hole[0], MINUTE_MS),
        *range(hole[1], window["end"], MINUTE_MS),
    ]
    assert partial.headers["Cache-Control"] == "no-store"
    assert whole.json()["complete"] is True
    assert "missing" not in whole.json()
    assert whole.json()["count"] == 3 * 499
    _assert_stored(database, sandbox, window)


async def test_unreachable_exchange_is_an_error_and_what_is_stored_is_served(
    settings: Settings, sandbox: Sandbox
) -> None:
    """No exchange listens there: 503 for what is not stored, and the rest as ever."""
    async with serving(settings, sandbox) as client:
        stored = await client.get(PATH, params=WINDOW)
    away = Sandbox("http://127.0.0.1:9")
    async with serving(settings, away) as client:
        hit = await client.get(PATH, params=WINDOW)
        missing = await client.get(
            PATH, params={"start": WINDOW["end"], "limit": 1, "end": WINDOW["end"] + MINUTE_MS}
        )
    away.close()

    assert hit.content == stored.content
    assert (missing.status_code, missing.json()["code"]) == (503, "upstream_unavailable")


def _assert_complete(answer: httpx.Response, sandbox: Sandbox) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.json()["complete"] is True
    assert answer.json()["candles"] == _truth(sandbox, WINDOW)


def _assert_stored(database: psycopg.Connection, sandbox: Sandbox, window: dict[str, int]) -> None:
    """The store equals the exchange in the window, covers it, and holds nothing else."""
    assert _covered(database, window) == [(window["start"], window["end"])]
    assert _stored(database, window) == _truth(sandbox, window)
    assert database.execute(_OUTSIDE_COVERAGE).fetchone() == (0,)


def _truth(sandbox: Sandbox, window: dict[str, int]) -> list[list[float]]:
    sandbox.clear_faults()
    return sandbox.candles(SYMBOL, "1m", window["start"], window["end"])


def _stored(database: psycopg.Connection, window: dict[str, int]) -> list[list[Any]]:
    return [list(row) for row in database.execute(_ROWS, _seconds(window))]


def _covered(database: psycopg.Connection, window: dict[str, int]) -> list[tuple[Any, ...]]:
    return database.execute(_COVERED, _seconds(window)).fetchall()


def _seconds(window: dict[str, int]) -> list[float]:
    return [window["start"] / 1000, window["end"] / 1000]
