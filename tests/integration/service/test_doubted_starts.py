"""Doubted history starts: told once, contradicted, asked again; injected time."""

from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
from support.clocks import advance, standing_clock
from support.http import connected
from support.sandbox import MINUTE_MS, Sandbox, running_sandbox
from support.services import app_of, opened_services, token_of

from mdp_core.domain.clock import Clock, to_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.settings import Settings
from mdp_core.wiring import Services
from scripts.sandbox.app import SandboxOptions
from syncer.scheduled_jobs import start_rechecks_of

NOW = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
A_YEAR_AGO = to_ms(NOW - timedelta(days=365)) // MINUTE_MS * MINUTE_MS
WINDOW = {"start": A_YEAR_AGO, "end": A_YEAR_AGO + 10 * MINUTE_MS}
BEFORE = {"start": "2018-01-01", "end": "2018-01-02"}
PATH = "/candles/binance/perp/BTC-USDT/1m"
BEGINS = "SELECT history_begins, history_witnesses FROM series"
FALSE_START = """
UPDATE series SET history_begins = %s, history_witnesses = 0, history_recheck_at = NULL
"""


@pytest.fixture
def clock() -> Clock:
    """The clock of the services and of the exchanges."""
    return standing_clock(NOW)


@pytest.fixture
def market(clock: Clock) -> Generator[Sandbox]:
    """A sandbox on the same clock."""
    with running_sandbox(SandboxOptions(clock=clock, limits=False)) as sandbox:
        yield sandbox


@pytest.fixture
async def opened(settings: Settings, market: Sandbox, clock: Clock) -> AsyncGenerator[Services]:
    """Services whose second question follows at once."""
    prompt = settings.model_copy(update={"clock": clock, "second_look_seconds": 0.0})
    async with opened_services(prompt, market) as services:
        yield services


@pytest.fixture
async def asking(opened: Services) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of those services."""
    async with connected(app_of(opened), token_of(opened.settings)) as client:
        yield client


async def test_probe_that_contradicts_the_listing_date_is_asked_again(
    asking: httpx.AsyncClient, market: Sandbox, database: psycopg.Connection
) -> None:
    """The newest candle comes as the first: it is not believed, nothing is hidden."""
    market.fault("wrong_window", symbol="BTCUSDT", startTime=0)

    answer = await asking.get(PATH, params=WINDOW)

    assert answer.json()["count"] == 10
    assert [probe["params"]["limit"] for probe in market.probes()] == ["1", "2", "1"]
    ((begins, witnesses),) = database.execute(BEGINS).fetchall()
    assert (begins.year, witnesses) == (2019, 2)


async def test_the_same_wrong_answer_twice_is_no_second_witness(
    asking: httpx.AsyncClient, market: Sandbox, database: psycopg.Connection
) -> None:
    """The newest candles come for any window: no start is believed or stored."""
    market.fault("wrong_window", times=9, symbol="BTCUSDT", startTime=0)

    answer = await asking.get(PATH, params=WINDOW)
    database_begins = database.execute(BEGINS).fetchall()
    market.clear_faults()
    again = await asking.get(PATH, params=WINDOW)

    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_bad_data")
    assert database_begins == []
    assert (again.status_code, again.json()["count"]) == (200, 10)


async def test_start_that_empties_the_window_is_asked_for_again(
    opened: Services,
    asking: httpx.AsyncClient,
    market: Sandbox,
    database: psycopg.Connection,
) -> None:
    """A false history start ends with the first request that it would empty."""
    await asking.get(PATH, params={"limit": 1})
    database.execute(FALSE_START, (NOW,))
    await forget(opened)

    answer = await asking.get(PATH, params=WINDOW)
    again = await asking.get(PATH, params=BEFORE)
    market.clear()
    believed = await asking.get(PATH, params=BEFORE)

    assert answer.json()["count"] == 10
    assert again.json()["count"] == believed.json()["count"] == 0
    assert market.probes() == []


@pytest.mark.parametrize("fault", ["server_error", "hang", "banned"])
async def test_window_before_a_start_told_once_is_unconfirmed_while_the_exchange_is_away(
    opened: Services,
    asking: httpx.AsyncClient,
    market: Sandbox,
    database: psycopg.Connection,
    fault: str,
) -> None:
    """Told by one answer, served as that; confirmed once the exchange is back."""
    await asking.get(PATH, params={"limit": 1})
    database.execute("UPDATE series SET history_witnesses = 1")
    await forget(opened)
    told_once = database.execute(BEGINS).fetchall()
    market.fault(fault, times=100, retry_after=600, seconds=30)

    away = await asking.get(PATH, params=BEFORE)
    unchanged = database.execute(BEGINS).fetchall()
    market.clear_faults()
    database.execute("UPDATE rate_budgets SET blocked_until = NULL")
    back = await asking.get(PATH, params=BEFORE)

    assert (away.status_code, away.json()["count"]) == (200, 0), away.text
    window = {name: away.json()[name] for name in ("start", "end")}
    assert away.json()["unconfirmed"] == [window]
    assert "ETag" not in away.headers
    assert unchanged == told_once
    assert (back.json()["unconfirmed"], back.json()["count"]) == ([], 0)
    assert database.execute(BEGINS).fetchall() == [(told_once[0][0], 2)]


async def test_repair_and_syncer_ask_for_the_beginning_anew(
    opened: Services,
    asking: httpx.AsyncClient,
    market: Sandbox,
    clock: Clock,
    database: psycopg.Connection,
) -> None:
    """A changed history start changes the slots between the old and the new one."""
    await asking.get(PATH, params={"limit": 1})
    for mend in ("repair", "syncer"):
        database.execute(FALSE_START, (NOW,))
        database.execute("DELETE FROM changes")
        await forget(opened)
        if mend == "repair":
            await opened.repair.repair(CandleQuery("binance", "perp", "BTC-USDT", "1m"))
        else:
            advance(clock, 86_401)
            adapter = opened.resolver.directory.adapter("binance", "perp")
            assert (await start_rechecks_of(opened, adapter).run()).rows == 1
        ((begins, _),) = database.execute(BEGINS).fetchall()
        ((slots,),) = database.execute("SELECT slots FROM changes").fetchall()

        assert begins.year == 2019
        assert (slots.lower, slots.upper) == (begins, NOW)
    market.clear()
    adapter = opened.resolver.directory.adapter("binance", "perp")
    assert (await start_rechecks_of(opened, adapter).run()).rows == 0
    assert market.probes() == []


async def test_beginning_is_never_after_a_stored_candle(
    opened: Services, asking: httpx.AsyncClient, market: Sandbox, database: psycopg.Connection
) -> None:
    """The setting statement sees to that, however often the exchange tells another."""
    await asking.get(PATH, params=WINDOW)
    market.fault("wrong_window", times=3, symbol="BTCUSDT", startTime=0)

    await opened.repair.repair(CandleQuery("binance", "perp", "BTC-USDT", "1m"))

    ((begins, _),) = database.execute(BEGINS).fetchall()
    ((first,),) = database.execute("SELECT min(time) FROM candles").fetchall()
    assert begins <= first


async def forget(services: Services) -> None:
    """Let the services read their series again."""
    series = await services.resolver.series("binance", "perp", "BTC-USDT", "1m")
    services.resolver._forget(series)  # noqa: SLF001 - they believe it for a minute
