"""Clients of all kinds: slow, leaving, broken off; none makes the others wait."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import product
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from support.http import HOST
from support.services import app_of, checked_out, token_of
from support.stored_candles import BTC, FORMATS, RAISE_EPOCH, bounds_of, fill
from support.waiting import eventually

from mdp_core.logs import log_config
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_MANY = 300_000
_LONGEST_SECONDS = 0.02


@asynccontextmanager
async def _served(services: Services) -> AsyncGenerator[int]:
    """Serve over TCP, on this loop; give the port."""
    config = uvicorn.Config(
        app_of(services), log_config=None, ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server((HOST, 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


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
    async with _served(services) as port, _asked(port, settings, params) as (reader, writer):
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
        async with _served(services) as port:
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
    async with _served(services) as port, _asked(port, settings, params) as (reader, _):
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        await eventually(lambda: checked_out(services) == 0)
        database.execute(RAISE_EPOCH)
        rest = b""
        with suppress(ConnectionError):
            rest = await asyncio.wait_for(reader.read(-1), 60)

        assert not rest.endswith(b"\r\n0\r\n\r\n")
        assert rest.count(b"[") < _MANY
    logging.getLogger("uvicorn.error").removeFilter(unknown)
    worse = [each.getMessage() for each in caplog.records if each.levelno > logging.INFO]

    assert len(worse) == 1
    assert "was repaired" in worse[0]
    assert all(each.levelno <= logging.WARNING for each in caplog.records)


async def test_head_of_a_long_answer_is_not_written(services: Services, settings: Settings) -> None:
    """The headers come, the connection is good for more, and few pieces were read."""
    params = bounds_of(await fill(services, _MANY))
    before = _reads(services)
    authorization = {"Authorization": f"Bearer {token_of(settings)}"}
    async with (
        _served(services) as port,
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}", headers=authorization) as client,
    ):
        head = await client.head(BTC, params=params)
        again = await client.head(BTC, params=params)
        await eventually(lambda: checked_out(services) == 0)

    assert (head.status_code, again.status_code) == (200, 200)
    assert head.headers["ETag"] == again.headers["ETag"]
    assert _reads(services) - before < 12


@contextmanager
def _watchdog() -> Generator[list[tuple[float, str]]]:
    """List the CPU seconds of each costly callback of the event loop, by callback.

    CPU time, since on a busy machine any callback may be kept waiting.
    """
    long = list[tuple[float, str]]()
    run = asyncio.Handle._run  # noqa: SLF001 - the loop offers no other way to see them

    def watched(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        spent = time.thread_time() - begun
        if spent >= _LONGEST_SECONDS:
            long.append((spent, repr(handle)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", watched)
        yield long


async def _is_blocked(ask: Callable[[], httpx.Response]) -> list[list[tuple[float, str]]]:
    """Ask twice; give what blocked both times, if anything did.

    What blocks does so every time; a pause that comes once is the collector's or the machine's.
    """
    blocked: list[list[tuple[float, str]]] = []
    for _ in range(2):
        with _watchdog() as long:
            answer = await asyncio.to_thread(ask)
        assert answer.status_code == 200, answer.text
        blocked.append(long)
    return blocked if all(blocked) else []


async def test_nothing_blocks_the_event_loop(settings: Settings, services: Services) -> None:
    """No callback takes 20 ms, from Postgres or from memory, in any format or coding."""
    window = bounds_of(await fill(services, 100_000))
    async with _served(services) as port:
        url = f"http://{HOST}:{port}{BTC}"
        authorization = f"Bearer {token_of(settings)}"
        for name, coding in product(FORMATS, ("identity", "identity", "gzip", "zstd")):
            headers = {"Authorization": authorization, "Accept-Encoding": coding}
            params = {**window, "format": name}
            assert not await _is_blocked(partial(httpx.get, url, params=params, headers=headers))


async def test_nothing_else_blocks_the_event_loop(
    settings: Settings, services: Services, database: psycopg.Connection
) -> None:
    """Coverage that changes at every slot, long lists, a plan for all."""
    window = bounds_of(await fill(services, 100_000))
    database.execute("DELETE FROM candles WHERE extract(minute FROM time)::int % 2 = 0")
    every = {"exchange": "binance", "market_type": "perp", "symbols": ["*"], "intervals": ["1h"]}
    headers = {"Authorization": f"Bearer {token_of(settings)}"}
    async with _served(services) as port:
        client = httpx.Client(base_url=f"http://{HOST}:{port}", headers=headers, timeout=60)
        coverage = f"/coverage{BTC.removeprefix('/candles')}"
        asks: list[Callable[[], httpx.Response]] = [
            partial(client.get, coverage, params={**window, "detail": True}),
            partial(client.get, "/meta/symbols", params={"limit": 5000}),
            partial(client.post, "/backfills", json={**every, "dry_run": True}),
        ]
        with client:
            for ask in asks:
                assert not await _is_blocked(ask)
