"""Clients of all kinds: slow, leaving, broken off; none makes the others wait."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from itertools import product
from typing import Any

import httpx
import psycopg
import pytest
from support.http import HOST
from support.services import checked_out, served_on_loop, token_of
from support.stored_candles import BTC, RAISE_EPOCH, bounds_of, fill
from support.waiting import eventually

from mdp_core.logs import log_config
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_MANY = 300_000


@asynccontextmanager
async def _asked(
    port: int, settings: Settings, params: dict[str, Any]
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a request; nothing of the answer is read but what the caller reads."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=1)
    query = "&".join(f"{name}={value}" for name, value in params.items())
    token = f"Authorization: Bearer {token_of(settings)}"
    writer.write("\r\n".join([f"GET {BTC}?{query} HTTP/1.1", "Host: mdp", token, "", ""]).encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _reads(services: Services) -> int:
    return services.database.pool_stats()["requests_num"]


@pytest.mark.parametrize("behaviour", ["stops reading", "reads a byte now and then", "leaves"])
async def test_slow_client_holds_nothing(
    settings: Settings, services: Services, behaviour: str
) -> None:
    """No connection, and no more than a few pieces of what it does not take."""
    params = bounds_of(await fill(services, _MANY))
    before = _reads(services)
    async with served_on_loop(services) as port, _asked(port, settings, params) as (reader, writer):
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        if behaviour == "leaves":
            writer.transport.abort()
        for _ in range(10):
            if behaviour == "reads a byte now and then":
                await reader.readexactly(1)
            await asyncio.sleep(0.1)
        await eventually(lambda: checked_out(services) == 0)

        # The answer has 16 pieces; those that the kernel's buffers took count too.
        assert _reads(services) - before < 14


async def test_leaving_clients_cost_no_connection(
    settings: Settings, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """Queries without a waiting client are cancelled; the pool keeps its connections."""
    window = await fill(services, _MANY)
    columns = ("open", "high", "low", "close", "volume", "trades")
    with caplog.at_level(logging.WARNING, "psycopg"):
        async with served_on_loop(services) as port:
            for name, delay in product(columns, (0.0, 0.02, 0.05)):
                params = {**bounds_of(window), "format": "arrow", "fields": name}
                async with _asked(port, settings, params) as (reader, writer):
                    assert await reader.readexactly(12) == b"HTTP/1.1 200"
                    await asyncio.sleep(delay)
                    writer.transport.abort()
            await eventually(lambda: checked_out(services) == 0)

    assert [record.getMessage() for record in caplog.records if "psycopg" in record.name] == []


async def test_answer_that_fails_on_its_way_does_not_end_cleanly(
    settings: Settings,
    services: Services,
    database: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half of it is sent when the rest is replaced: no client may take it for whole.

    It happens as it should: the log warns of it, in one line, and speaks of no mistake.
    """
    params = bounds_of(await fill(services, _MANY))
    unknown = log_config("INFO", "json", is_terminal=False)["filters"]["unknown"]["()"]()
    logging.getLogger("uvicorn.error").addFilter(unknown)
    async with served_on_loop(services) as port, _asked(port, settings, params) as (reader, _):
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        await eventually(lambda: checked_out(services) == 0)
        database.execute(RAISE_EPOCH)
        rest = b""
        with suppress(ConnectionError):
            while piece := await reader.read(2**20):
                rest += piece

        assert not rest.endswith(b"\r\n0\r\n\r\n")
        assert rest.count(b"[") < _MANY
    logging.getLogger("uvicorn.error").removeFilter(unknown)
    worse = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]

    assert len(worse) == 1
    assert "was repaired" in worse[0]
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


async def test_head_of_a_long_answer_is_not_written(services: Services, settings: Settings) -> None:
    """The headers come, the connection is good for more, and few pieces were read."""
    params = bounds_of(await fill(services, _MANY))
    before = _reads(services)
    authorization = {"Authorization": f"Bearer {token_of(settings)}"}
    async with (
        served_on_loop(services) as port,
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}", headers=authorization) as client,
    ):
        head = await client.head(BTC, params=params)
        again = await client.head(BTC, params=params)
        await eventually(lambda: checked_out(services) == 0)

    assert (head.status_code, again.status_code) == (200, 200)
    assert head.headers["ETag"] == again.headers["ETag"]
    assert _reads(services) - before < 12
