"""Absent candles in doubt: told, asked again, found or confirmed; injected time."""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest
from support.clocks import advance, standing_clock
from support.http import connected
from support.sandbox import MINUTE_MS, Sandbox, running_sandbox
from support.services import app_of, opened_services, token_of
from support.waiting import eventually

from mdp_core.domain.clock import Clock, to_ms
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions
from syncer.scheduled_jobs import rechecks_of

NOW = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
NOW_MS = to_ms(NOW) // MINUTE_MS * MINUTE_MS
LATE_MS = NOW_MS - 3 * MINUTE_MS
"""Closed two and a half minutes ago: past the grace of Binance, within that of the others."""

_ABSENCES = "SELECT lower(slots), upper(slots), attempts FROM absences ORDER BY slots"
_CLAIMED = "SELECT count(*) FROM absences WHERE claimed_until > now()"


@pytest.fixture
def clock() -> Clock:
    """The clock of the services and of the exchanges."""
    return standing_clock(NOW)


@pytest.fixture
def prompt(settings: Settings, clock: Clock) -> Settings:
    """Settings under which the second look follows at once."""
    return settings.model_copy(update={"clock": clock, "second_look_seconds": 0.0})


@pytest.fixture
def market(clock: Clock) -> Generator[Sandbox]:
    """A sandbox on the same clock."""
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        yield sandbox


@dataclass(frozen=True, slots=True)
class Stage:
    """A test's sandbox, clock, services and client."""

    client: httpx.AsyncClient
    services: Services
    sandbox: Sandbox
    clock: Clock

    async def ask(self, start: int, end: int, symbol: str = "SOL-USDT") -> httpx.Response:
        """Ask for minutes of Binance."""
        params = {"start": start, "end": end}
        path = f"/candles/binance/perp/{symbol}/1m"
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer

    def withhold(self, slot: int) -> None:
        """Have the exchange publish a candle only when the faults are cleared."""
        self.sandbox.fault("late_candle", slot=slot, seconds=3600)


@pytest.fixture
async def stage(prompt: Settings, market: Sandbox, clock: Clock) -> Any:  # noqa: ANN401
    """Services and a client, at a standing time."""
    async with (
        opened_services(prompt, market) as services,
        connected(app_of(services), token_of(prompt)) as client,
    ):
        yield Stage(client, services, market, clock)


def times(answer: httpx.Response) -> list[int]:
    return [row[0] for row in answer.json()["candles"]]


def minutes(start: int, end: int) -> list[int]:
    return list(range(start, end, MINUTE_MS))


async def test_late_candle_is_told_as_unconfirmed_and_found_by_the_recheck(
    stage: Stage, database: psycopg.Connection
) -> None:
    """It comes 150 s after its close: never a 200 that lacks it without saying so."""
    window = (LATE_MS - 10 * MINUTE_MS, NOW_MS - MINUTE_MS)
    stage.withhold(LATE_MS)

    first = await stage.ask(*window)
    stage.sandbox.clear_faults()
    again = await stage.ask(*window)
    advance(stage.clock, 31)
    due = await stage.ask(*window)
    await eventually(lambda: not database.execute(_ABSENCES).fetchall())
    found = await stage.ask(*window)

    doubt = [{"start": LATE_MS, "end": LATE_MS + MINUTE_MS}]
    for answer in (first, again, due):
        assert answer.json()["unconfirmed"] == doubt
        assert answer.json()["complete"] is True
        assert answer.headers["X-Unconfirmed"] == "1"
        assert "no-cache" in answer.headers["Cache-Control"]
        assert "ETag" not in answer.headers
        assert LATE_MS not in times(answer)
    assert [answer.headers["X-Cache"] for answer in (again, due, found)] == ["hit"] * 3
    assert times(found) == minutes(*window)
    assert found.json()["unconfirmed"] == []
    assert found.headers["X-Unconfirmed"] == "0"
    assert "ETag" in found.headers


async def test_process_that_ends_leaves_its_rechecks_to_others(
    prompt: Settings, market: Sandbox, clock: Clock, database: psycopg.Connection
) -> None:
    """The claims on slots of a silent exchange are free at once."""
    window = (LATE_MS - 10 * MINUTE_MS, NOW_MS - MINUTE_MS)
    async with (
        opened_services(prompt, market) as services,
        connected(app_of(services), token_of(prompt)) as client,
    ):
        stage = Stage(client, services, market, clock)
        stage.withhold(LATE_MS)
        await stage.ask(*window)
        market.fault("hang", seconds=60, times=10)
        advance(clock, 31)
        await stage.ask(*window)
        await eventually(lambda: database.execute(_CLAIMED).fetchone() == (1,))

    assert database.execute(_CLAIMED).fetchone() == (0,)


async def test_candle_that_never_comes_is_confirmed_by_the_last_recheck(
    stage: Stage, database: psycopg.Connection
) -> None:
    """Seven times it is asked for in vain; then the answer is as final as any."""
    window = (LATE_MS - 10 * MINUTE_MS, NOW_MS - MINUTE_MS)
    stage.withhold(LATE_MS)
    first = await stage.ask(*window)
    requests = list[int]()
    for age in (30, 60, 120, 600, 3600, 21_600, 86_400):
        assert (await stage.ask(*window)).json()["unconfirmed"]
        advance(stage.clock, age + 1 - (stage.clock() - NOW).total_seconds())
        stage.sandbox.clear()
        await recheck(stage)
        requests.append(len(stage.sandbox.candle_requests()))
    final = await stage.ask(*window)

    assert database.execute(_ABSENCES).fetchall() == []
    assert requests == [1] * 7
    assert final.json()["unconfirmed"] == []
    assert final.json()["candles"] == first.json()["candles"]
    assert "ETag" in final.headers


async def test_recheck_of_a_silent_exchange_is_none(
    stage: Stage,
) -> None:
    """The last recheck is repeated until the exchange answers."""
    window = (LATE_MS - 10 * MINUTE_MS, NOW_MS - MINUTE_MS)
    stage.withhold(LATE_MS)
    await stage.ask(*window)
    advance(stage.clock, 86_401)
    stage.sandbox.fault("empty_page", times=100)
    await recheck(stage)
    silent = await stage.ask(*window)
    stage.sandbox.clear_faults()
    advance(stage.clock, 31)
    await recheck(stage)
    found = await stage.ask(*window)

    assert silent.json()["unconfirmed"] != []
    assert times(found) == minutes(*window)


@pytest.mark.parametrize("fault", ["empty_page", "short_page"])
@pytest.mark.parametrize("asked", [1, 2])
async def test_one_odd_answer_is_never_taken_for_all_there_is(
    stage: Stage, fault: str, asked: int
) -> None:
    """An answer without the row says so, or fails; a moment later the truth is served."""
    window = (LATE_MS - 600 * MINUTE_MS, LATE_MS - 300 * MINUTE_MS)
    await stage.ask(window[1], window[1] + 10 * MINUTE_MS)
    stage.sandbox.fault(fault, times=asked, symbol="SOLUSDT", startTime=window[0])

    params = {"start": window[0], "end": window[1]}
    odd = await stage.client.get("/candles/binance/perp/SOL-USDT/1m", params=params)
    stage.sandbox.clear_faults()
    advance(stage.clock, 31)
    await recheck(stage)
    true = await stage.ask(*window)

    if odd.status_code == 200:
        assert sorted([*times(odd), *unconfirmed_minutes(odd)]) == minutes(*window)
    assert times(true) == minutes(*window)
    assert true.json()["unconfirmed"] == []


async def test_silent_exchange_is_not_an_empty_one(
    stage: Stage, database: psycopg.Connection
) -> None:
    """Every answer is empty, also to what is known: 503, and nothing is covered."""
    window = (LATE_MS - 600 * MINUTE_MS, LATE_MS - 300 * MINUTE_MS)
    await stage.ask(window[1], window[1] + 10 * MINUTE_MS)
    covered = database.execute("SELECT coverage FROM series").fetchall()
    stage.sandbox.fault("empty_page", times=1000)

    params = {"start": window[0], "end": window[1]}
    silent = await stage.client.get("/candles/binance/perp/SOL-USDT/1m", params=params)
    unchanged = database.execute("SELECT coverage FROM series").fetchall()
    stage.sandbox.clear_faults()
    true = await stage.ask(*window)

    assert (silent.status_code, silent.json()["code"]) == (503, "upstream_unavailable")
    assert unchanged == covered
    assert times(true) == minutes(*window)


def unconfirmed_minutes(answer: httpx.Response) -> list[int]:
    windows = answer.json()["unconfirmed"]
    return [time for window in windows for time in minutes(window["start"], window["end"])]


async def recheck(stage: Stage) -> None:
    """Do what the syncer's job does."""
    for adapter in stage.services.resolver.directory.markets(None, None):
        result = await rechecks_of(stage.services, adapter).run()
        assert result.error is None


async def test_unconfirmed_slots_are_told_wherever_coverage_is(stage: Stage) -> None:
    """By `/coverage`, with and without detail, the series list, and every format."""
    window = (LATE_MS - 10 * MINUTE_MS, NOW_MS - MINUTE_MS)
    stage.withhold(LATE_MS)
    await stage.ask(*window)
    path, params = "binance/perp/SOL-USDT/1m", {"start": window[0], "end": window[1]}

    plain = await stage.client.get(f"/coverage/{path}", params=params)
    detailed = await stage.client.get(f"/coverage/{path}", params={**params, "detail": True})
    listed = await stage.client.get("/coverage")
    formats = [
        await stage.client.get(f"/candles/{path}", params={**params, "format": name})
        for name in ("ndjson", "csv", "arrow", "parquet")
    ]

    doubt = {"start": LATE_MS, "end": LATE_MS + MINUTE_MS, "state": "unconfirmed"}
    for answer in (plain, detailed):
        assert [entry for entry in answer.json()["windows"] if entry["state"] == "unconfirmed"] == [
            doubt
        ]
    assert [entry["unconfirmed_slots"] for entry in listed.json()["series"]] == [1]
    for answer in formats:
        assert answer.headers["X-Unconfirmed"] == "1"
        assert "ETag" not in answer.headers


async def test_found_candle_is_a_change_of_its_own_slot_alone(
    stage: Stage, database: psycopg.Connection
) -> None:
    """A healed slot is a change of that slot and of no other."""
    window = (LATE_MS - 10 * MINUTE_MS, NOW_MS - MINUTE_MS)
    older = (LATE_MS - 600 * MINUTE_MS, LATE_MS - 500 * MINUTE_MS)
    stage.withhold(LATE_MS)
    await stage.ask(*window)
    await stage.ask(*older)
    stage.sandbox.clear_faults()
    advance(stage.clock, 31)
    await recheck(stage)

    assert times(await stage.ask(*window)) == minutes(*window)
    ((slots, epoch),) = database.execute("SELECT slots, epoch FROM changes").fetchall()
    assert (to_ms(slots.lower), to_ms(slots.upper)) == (LATE_MS, LATE_MS + MINUTE_MS)
    assert epoch == 1
