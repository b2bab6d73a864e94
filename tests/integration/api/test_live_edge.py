"""The live edge: answers, stored rows and requests where candles still change."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import httpx
import psycopg
import pytest
from support.sandbox import MINUTE_MS, Sandbox, running_sandbox
from support.services import serving

from mdp_core.domain.clock import Clock, to_ms
from mdp_core.settings import Settings
from scripts.sandbox.app import SandboxOptions

PATH = "/candles/binance/perp/ETH-USDT/1m"
SYMBOL = "ETHUSDT"
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
NOON_MS = to_ms(NOON)

_SPEED = 20
_SETTLE_MS = 10_000
_TAIL_MS = 2_000 * _SPEED
# What the machine may take for its own purposes between two looks at the clock.
_SLACK_MS = 30_000

_NEWEST = "SELECT (extract(epoch FROM max(time)) * 1000)::bigint FROM candles"
_COVERED_UNTIL = "SELECT (extract(epoch FROM upper(coverage)) * 1000)::bigint FROM series"
_ROWS = """
SELECT (extract(epoch FROM time) * 1000)::bigint, open, high, low, close, volume
FROM candles ORDER BY time
"""


@dataclass(frozen=True, slots=True)
class Look:
    """One answer, and what the database held right after it."""

    before_ms: int
    after_ms: int
    rows: list[list[float]]
    settled_until: int
    stored_until: int
    covered_until: int


@asynccontextmanager
async def _at(
    clock: Clock, settings: Settings, **exchange: float
) -> AsyncGenerator[tuple[httpx.AsyncClient, Sandbox]]:
    """Have the exchange and the services agree on a time."""
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        told = settings.model_copy(update={"clock": clock})
        async with serving(told, sandbox, **exchange) as client:
            yield client, sandbox


def _standing(milliseconds: int) -> Clock:
    """Make a clock that stands, as far as a millisecond shows, so long after noon."""
    return Clock.starting_at(NOON + timedelta(milliseconds=milliseconds), speed=1e-6)


@pytest.mark.parametrize(
    ("clock_ms", "newest", "settled_until"),
    [
        pytest.param(-1, -2, -1, id="a millisecond before its close it is still forming"),
        pytest.param(0, -1, -1, id="closed and provisional"),
        pytest.param(1_999, -1, -1, id="provisional until it has settled"),
        pytest.param(2_000, -1, 0, id="settled"),
        pytest.param(59_999, -1, 0, id="settled while the next one forms"),
    ],
)
async def test_candle_is_returned_once_closed_and_stored_once_settled(
    settings: Settings,
    database: psycopg.Connection,
    clock_ms: int,
    newest: int,
    settled_until: int,
) -> None:
    """Minutes from noon: the newest candle, where finality ends, the stored rows."""
    async with _at(_standing(clock_ms), settings) as (client, sandbox):
        body = (await client.get(PATH, params={"limit": 5})).json()
        settled = (await client.get(PATH, params={"limit": 5, "settled": True})).json()
        truth = sandbox.candles(SYMBOL, "1m", body["start"], body["end"])
    edge = NOON_MS + settled_until * MINUTE_MS

    assert body["candles"] == truth
    assert body["candles"][-1][0] == NOON_MS + newest * MINUTE_MS
    assert body["end"] == NOON_MS + (newest + 1) * MINUTE_MS
    assert body["settled_until"] == edge
    assert settled["end"] == settled["settled_until"] == edge
    assert settled["candles"][-1][0] == edge - MINUTE_MS
    assert _number(database, _NEWEST) == edge - MINUTE_MS
    assert _number(database, _COVERED_UNTIL) == edge


async def test_window_that_ends_in_the_future_is_cut_at_the_last_closed_candle(
    settings: Settings,
) -> None:
    """Whatever `end` says, the answer's end is where the forming candle opens."""
    async with _at(_standing(30_000), settings) as (client, _):
        window = {"start": NOON_MS - 3 * MINUTE_MS, "end": NOON_MS + 3 * MINUTE_MS}
        body = (await client.get(PATH, params=window)).json()

    assert (body["end"], body["count"], body["complete"]) == (NOON_MS, 3, True)
    assert body["next"] is None


async def test_settled_newest_candle_in_hand_means_nothing_is_asked(settings: Settings) -> None:
    """Until the next candle closes the store alone answers, with the same bytes."""
    async with _at(_standing(30_000), settings) as (client, sandbox):
        first = await client.get(PATH, params={"limit": 5})
        sandbox.clear()
        second = await client.get(PATH, params={"limit": 5})

        assert second.content == first.content
        assert second.headers["X-Cache"] == "hit"
        assert sandbox.requests() == []


async def test_window_that_begins_inside_a_kept_tail_holds_its_own_rows_only(
    settings: Settings,
) -> None:
    """A fresh provisional range is cut to each new query: its start, its limit."""
    begin, minutes = NOON_MS - 3 * MINUTE_MS, range(NOON_MS - 3 * MINUTE_MS, NOON_MS, MINUTE_MS)
    async with _at(_standing(500), settings, settle_seconds=600) as (client, _):
        await client.get(PATH, params={"limit": 8})
        inside = (await client.get(PATH, params={"start": begin})).json()
        newest = (await client.get(PATH, params={"limit": 2})).json()
        limited = (await client.get(PATH, params={"start": begin, "limit": 1})).json()
        settled = (await client.get(PATH, params={"start": begin, "settled": True})).json()

    assert [row[0] for row in inside["candles"]] == list(minutes)
    assert [row[0] for row in newest["candles"]] == list(minutes)[1:]
    assert [row[0] for row in limited["candles"]] == [begin]
    assert (limited["start"], limited["end"]) == (begin, begin + MINUTE_MS)
    assert (settled["candles"], settled["start"]) == ([], begin)


async def test_tail_is_asked_for_every_two_seconds_at_most_whoever_asks(
    settings: Settings,
) -> None:
    """While the newest candle is provisional, clients cost one request in two seconds."""
    async with _at(_standing(500), settings) as (client, sandbox):
        await client.get(PATH, params={"limit": 1})
        sandbox.clear()
        begun = time.monotonic()
        asks = (client.get(PATH, params={"limit": 1 + n % 5}) for n in range(20))
        answers = await asyncio.gather(*asks)
        seconds = time.monotonic() - begun

        assert {answer.json()["candles"][-1][0] for answer in answers} == {NOON_MS - MINUTE_MS}
        assert len(sandbox.candle_requests()) <= 1 + seconds // 2


async def test_late_candle_is_not_taken_for_no_candle(
    settings: Settings, database: psycopg.Connection
) -> None:
    """A settled slot without a row may be late: it stays uncovered, and comes in time."""
    async with _at(_standing(10_000), settings) as (client, sandbox):
        sandbox.fault("late_candle", seconds=1, endTime=NOON_MS - 1)
        early = (await client.get(PATH, params={"limit": 3})).json()
        covered = _number(database, _COVERED_UNTIL)
        late = early
        while late["candles"][-1][0] < NOON_MS - MINUTE_MS:
            late = (await client.get(PATH, params={"limit": 3})).json()

        assert early["candles"][-1][0] == NOON_MS - 2 * MINUTE_MS
        assert early["settled_until"] == covered == NOON_MS - MINUTE_MS
        assert late["settled_until"] == NOON_MS
        assert late["candles"] == sandbox.candles(SYMBOL, "1m", NOON_MS - 3 * MINUTE_MS, NOON_MS)


async def test_forming_candle_is_never_returned_and_never_stored(
    settings: Settings, database: psycopg.Connection
) -> None:
    """At each second of three minutes: only closed candles, provisional, then settled."""
    clock = Clock.starting_at(NOON, _SPEED)
    async with _at(clock, settings, settle_seconds=_SETTLE_MS / 1000) as (client, sandbox):
        looks = [look async for look in _looks(client, database, clock)]
        stored = [list(row) for row in database.execute(_ROWS)]
        first = min(int(look.rows[0][0]) for look in looks)
        truth = {row[0]: row for row in sandbox.candles(SYMBOL, "1m", first, to_ms(clock()))}

    assert len(looks) > 60
    for look in looks:
        newest = int(look.rows[-1][0])
        assert newest + MINUTE_MS <= look.after_ms
        assert newest + MINUTE_MS >= _floor(look.before_ms - _TAIL_MS - _SLACK_MS)
        assert [truth[row[0]] for row in look.rows] == look.rows
        assert look.settled_until + _SETTLE_MS <= look.after_ms
        assert look.stored_until + MINUTE_MS <= look.covered_until
        assert look.covered_until + _SETTLE_MS <= look.after_ms
    assert [truth[row[0]] for row in stored if row[0] >= first] == [
        row for row in stored if row[0] >= first
    ]
    _assert_provisional_then_settled(looks)


def _assert_provisional_then_settled(looks: list[Look]) -> None:
    """Each candle that closed meanwhile came provisionally first, then for good."""
    closed = {int(look.rows[-1][0]) for look in looks if look.rows[-1][0] >= NOON_MS}
    for open_ms in sorted(closed)[:-1]:
        shown = [look for look in looks if any(row[0] == open_ms for row in look.rows)]
        assert shown[0].settled_until <= open_ms
        assert any(look.settled_until > open_ms for look in shown)
    assert len(closed) >= 3


async def _looks(
    client: httpx.AsyncClient, database: psycopg.Connection, clock: Clock
) -> AsyncGenerator[Look]:
    """Ask for the newest candles about once in every second of the sandbox's time."""
    while clock() < NOON + timedelta(minutes=4, seconds=5):
        before = to_ms(clock())
        body: dict[str, Any] = (await client.get(PATH, params={"limit": 5})).json()
        stored, covered = _number(database, _NEWEST), _number(database, _COVERED_UNTIL)
        after = to_ms(clock())
        yield Look(before, after, body["candles"], body["settled_until"], stored, covered)
        await asyncio.sleep(1 / _SPEED)


def _number(database: psycopg.Connection, query: LiteralString) -> int:
    row = database.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _floor(ms: int) -> int:
    return ms // MINUTE_MS * MINUTE_MS


async def test_forming_candle_that_can_not_be_had_is_asked_for_once(
    settings: Settings, sandbox: Sandbox
) -> None:
    """Requests in the seconds that it is shared get the same error; then all is well."""
    path = PATH.replace("/candles", "/latest")
    async with serving(settings, sandbox) as client:
        await client.get(PATH, params={"limit": 1})
        sandbox.clear()
        sandbox.fault("ohlc_violation")
        answers = await asyncio.gather(
            *(client.get(path, params={"forming": True}) for _ in range(20))
        )
        later = await client.get(path, params={"forming": True})
        asked = len(sandbox.candle_requests())
        while (healed := await client.get(path, params={"forming": True})).is_error:  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(0.05)

    assert {answer.json()["code"] for answer in (*answers, later)} == {"not_found"}
    assert asked == 1
    assert (healed.status_code, healed.json()["closed"]) == (200, False)


async def test_forming_candle_has_a_deadline(settings: Settings, sandbox: Sandbox) -> None:
    """A silent exchange holds no request beyond its deadline."""
    impatient = settings.model_copy(update={"request_deadline_seconds": 1.0})
    async with serving(impatient, sandbox) as client:
        await client.get(PATH, params={"limit": 1})
        sandbox.fault("hang", times=9)
        answer = await client.get(PATH.replace("/candles", "/latest"), params={"forming": True})

    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_unavailable")
    assert answer.headers["Retry-After"] == "1"
