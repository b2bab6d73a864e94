"""Faulty lists of symbols, on every exchange; on injected time."""

import asyncio
from collections.abc import Generator
from dataclasses import replace

import httpx
import psycopg
import pytest
import stamina
from support.sandbox import Sandbox
from support.services import serving

from mdp_core.domain.series import Symbol
from mdp_core.series import symbol_directory
from mdp_core.settings import Settings
from mdp_core.wiring import Services

MARKETS = {"binance": "perp", "hyperliquid": "perp", "coinbase": "spot"}
NAMES = {"binance": "BTC-USDT", "hyperliquid": "BTC-USDC", "coinbase": "BTC-USD"}
NATIVES = {"binance": "BTCUSDT", "hyperliquid": "BTC", "coinbase": "BTC-USD"}
EVERY_EXCHANGE = pytest.mark.parametrize("exchange", MARKETS)

_ACTIVE = "SELECT count(*) FROM symbols WHERE exchange = %s AND active"
_VERSIONS = "SELECT native, xmin::text FROM symbols ORDER BY native"


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts() -> Generator[None]:
    with stamina.set_testing(True, attempts=2, cap=True):
        yield


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if five seconds had passed after each failure."""
    monkeypatch.setattr(symbol_directory, "_FAILURE_SECONDS", 0.0)


async def list_symbols(client: httpx.AsyncClient, exchange: str) -> httpx.Response:
    """Ask for the symbols of an exchange."""
    return await client.get("/meta/symbols", params={"exchange": exchange, "limit": 5})


async def newest(client: httpx.AsyncClient, exchange: str, name: str) -> httpx.Response:
    """Ask for candles of a symbol."""
    path = f"/candles/{exchange}/{MARKETS[exchange]}/{name}/1h"
    return await client.get(path, params={"limit": 2})


@EVERY_EXCHANGE
@pytest.mark.usefixtures("_no_pause")
async def test_empty_list_on_a_new_database_is_an_error_of_the_exchange(
    exchange: str, settings: Settings, sandbox: Sandbox
) -> None:
    """It is no proof that a symbol does not exist, and is asked for again."""
    sandbox.fault("empty_list", exchange=exchange, times=2)
    async with serving(settings, sandbox) as client:
        refused = [
            await newest(client, exchange, NAMES[exchange]),
            await list_symbols(client, exchange),
        ]
        listed = await list_symbols(client, exchange)
        found = await newest(client, exchange, NAMES[exchange])

    assert [answer.status_code for answer in refused] == [502, 502]
    assert {answer.json()["code"] for answer in refused} == {"upstream_bad_data"}
    assert "list of 0 symbols" in refused[0].json()["detail"]
    assert len(listed.json()["symbols"]) == 5
    assert found.status_code == 200, found.text


@EVERY_EXCHANGE
async def test_failure_is_told_for_seconds_without_asking_again(
    exchange: str, settings: Settings, sandbox: Sandbox
) -> None:
    """Many requests for unknown symbols cost one question."""
    sandbox.fault("empty_list", exchange=exchange, times=9)
    async with serving(settings, sandbox) as client:
        answers = await asyncio.gather(
            *(newest(client, exchange, NAMES[exchange]) for _ in range(6))
        )

    assert {answer.status_code for answer in answers} == {502}
    faults = [entry for entry in sandbox.requests() if entry["fault"] == "empty_list"]
    assert len(faults) == 1


@EVERY_EXCHANGE
@pytest.mark.parametrize("fault", ["half_list", "empty_list"])
@pytest.mark.usefixtures("_no_pause")
async def test_list_that_lost_too_much_changes_nothing(
    exchange: str, fault: str, settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Listed symbols are served; the next list is taken."""
    async with serving(settings, sandbox) as client:
        await list_symbols(client, exchange)
    before = database.execute(_ACTIVE, [exchange]).fetchone()
    async with serving(settings, sandbox) as client:
        sandbox.fault(fault, exchange=exchange)
        refused = await newest(client, exchange, "NOSUCH-COIN")
        known = await newest(client, exchange, NAMES[exchange])
        unknown = await newest(client, exchange, "NOSUCH-COIN")

    assert (refused.status_code, refused.json()["code"]) == (502, "upstream_bad_data")
    assert known.status_code == 200, known.text
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_symbol")
    assert database.execute(_ACTIVE, [exchange]).fetchone() == before


@EVERY_EXCHANGE
async def test_malformed_entry_costs_its_symbol_and_is_named(
    exchange: str, settings: Settings, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The others of a new database are listed; the log has its name."""
    sandbox.fault("malformed_entry", exchange=exchange, symbol=NATIVES[exchange])
    async with serving(settings, sandbox) as client:
        listed = await list_symbols(client, exchange)

    assert len(listed.json()["symbols"]) == 5
    lines = [vars(line)["symbols"] for line in caplog.records if "malformed" in line.message]
    assert lines == [[NATIVES[exchange]]]


@EVERY_EXCHANGE
async def test_malformed_entry_of_a_known_symbol_leaves_it_as_it_was(
    exchange: str, services: Services, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Nothing that can be read says that it is no longer traded."""
    adapter = services.resolver.directory.adapter(exchange, MARKETS[exchange])
    await services.resolver.directory.refresh(adapter)
    before = database.execute(_VERSIONS).fetchall()
    sandbox.fault("malformed_entry", exchange=exchange, symbol=NATIVES[exchange])
    await services.resolver.directory.refresh(adapter)

    assert database.execute(_VERSIONS).fetchall() == before
    assert (await services.resolver.directory.symbol(adapter, NAMES[exchange])).active


async def test_refreshes_in_opposite_order_do_not_lock_each_other_out(
    services: Services, database: psycopg.Connection
) -> None:
    """Whatever each of them holds, lists and leaves out."""
    adapter = services.resolver.directory.adapter("binance", "perp")
    await services.resolver.directory.refresh(adapter)
    catalog = services.resolver._catalog  # noqa: SLF001 - the statement itself is tried
    symbols = await services.resolver.directory.symbols(adapter)
    halves = symbols[: len(symbols) // 2], symbols[len(symbols) // 2 :]

    def changed(of: list[Symbol], number: int) -> list[Symbol]:
        return [replace(symbol, multiplier=1000 + number) for symbol in of]

    lists = [changed(symbols, 0), changed(symbols[::-1], 1), changed(halves[0], 2)]
    lists += [changed(halves[1][::-1], 3), changed(symbols, 4), changed(symbols[::-1], 5)]
    await asyncio.gather(*(catalog.save_symbols("binance", "perp", entry) for entry in lists * 4))

    assert database.execute("SELECT count(*) FROM symbols").fetchone() == (len(symbols),)


async def test_name_of_two_active_contracts_is_told_as_ambiguous(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """The answer has the exchange's own names, by which each is found."""
    async with serving(settings, sandbox) as client:
        await list_symbols(client, "binance")
    database.execute("UPDATE symbols SET name = 'BTC-USDT' WHERE native = 'ETHUSDT'")
    async with serving(settings, sandbox) as client:
        sandbox.fault("half_list", exchange="binance", times=99)
        answer = await newest(client, "binance", "BTC-USDT")
        own = await newest(client, "binance", "ETHUSDT")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_symbol")
    assert "ambiguous" in answer.json()["detail"]
    assert answer.json()["near"] == ["BTCUSDT", "ETHUSDT"]
    assert own.status_code == 200, own.text
