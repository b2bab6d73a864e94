"""Absent candles in doubt: told, asked for again, found or confirmed; on injected time."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from conftest import (
    MINUTE_MS,
    Sandbox,
    app_of,
    connected,
    eventually,
    one_kind_of_database,
    opened_services,
    running_sandbox,
    token_of,
)
from support.clocks import advance, standing_clock

from mdp_core.domain.clock import Clock, to_ms
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions

pytestmark = one_kind_of_database

NOW = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
NOW_MS = to_ms(NOW) // MINUTE_MS * MINUTE_MS
LATE_MS = NOW_MS - 3 * MINUTE_MS
"""Closed two and a half minutes ago: past the grace of Binance, within that of the others."""

_ABSENCES = "SELECT lower(slots), upper(slots), attempts FROM absences ORDER BY slots"


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
    """What a test plays on."""

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

    def withhold(self, slot: int, **more: object) -> None:
        """Have the exchange publish a candle only when the faults are cleared."""
        self.sandbox.fault("late_candle", slot=slot, seconds=3600, **more)


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
