"""The database goes away under load: typed refusals meanwhile, answers after."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import httpx
import pytest
from support.http import HOST, connected
from support.postgres import Server
from support.sandbox import MINUTE_MS, Sandbox
from support.services import app_of, checked_out, opened_services, token_of
from support.waiting import eventually

from db.local.server import open_local_database
from db.upgrade import upgrade
from mdp_core.settings import Settings

PATH = "/candles/binance/perp/BTC-USDT/1m"
PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS

# As many as ask.
_REFUSED = 20
_Verdict: TypeAlias = tuple[int, str | None]


@pytest.mark.timeout(180)
async def test_database_restarted_under_load(
    server: Server, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    """503 `store_unavailable` while it is away, 200 once it is back, no leak."""
    kind = "timescaledb" if server.has_timescaledb else "plain"
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(_gate())
        database = _Restartable(tmp_path / "db", kind, gate)
        url = await database.start()
        stack.push_async_callback(database.stop)
        await asyncio.to_thread(upgrade, url)
        there = settings.model_copy(update={"database_url": url})
        services = await stack.enter_async_context(opened_services(there, sandbox))
        client = await stack.enter_async_context(connected(app_of(services), token_of(there)))
        assert (await client.get(PATH, params=_page(0))).status_code == 200
        async with _load(client) as seen:
            await eventually(lambda: len(seen) > 20)
            await database.stop()
            gone_at = time.monotonic()
            await eventually(lambda: _verdicts(seen, since=gone_at) > _REFUSED)
            back_at = time.monotonic()
            await database.start()
            started_at = time.monotonic()
            await eventually(lambda: _are_served(seen, since=started_at))
        await eventually(lambda: checked_out(services) == 0)
    away = {verdict for at, verdict in seen if gone_at < at < back_at}

    assert away == {(503, "store_unavailable")}
    assert {verdict for _, verdict in seen} == {(200, None), (503, "store_unavailable")}


class _Restartable:
    """A database server behind a gate."""

    def __init__(self, folder: Path, kind: Literal["timescaledb", "plain"], gate: "_Gate") -> None:
        self._folder = folder
        self._kind: Literal["timescaledb", "plain"] = kind
        self._gate = gate
        self._running = ExitStack()

    async def start(self) -> str:
        """Start it; give the URL of the gate, which stays the same."""
        self._folder.parent.chmod(0o755)  # the server of root runs as another user
        opening = open_local_database(self._folder, kind=self._kind)
        opened = await asyncio.to_thread(self._running.enter_context, opening)
        self._gate.behind = urlsplit(opened.url).port or 0
        return opened.url.replace(f":{self._gate.behind}/", f":{self._gate.port}/")

    async def stop(self) -> None:
        """Stop it, with connections or without."""
        await asyncio.to_thread(self._running.close)


@asynccontextmanager
async def _load(client: httpx.AsyncClient) -> AsyncGenerator[list[tuple[float, _Verdict]]]:
    """Ask repeatedly for stored and for other windows; note each verdict's time."""
    seen: list[tuple[float, _Verdict]] = []
    cold, stopping = itertools.count(1), asyncio.Event()

    async def ask(pages: Iterator[int]) -> None:
        while not stopping.is_set():
            page = next(pages)
            answer = await client.get(PATH, params=_page(page))
            code = None if answer.is_success else answer.json()["code"]
            seen.append((time.monotonic(), (answer.status_code, code)))
            await asyncio.sleep(0.05)

    asking = [asyncio.create_task(ask(itertools.repeat(0))) for _ in range(15)]
    asking += [asyncio.create_task(ask(cold)) for _ in range(5)]
    try:
        yield seen
    finally:
        stopping.set()
        await asyncio.gather(*asking)


def _verdicts(seen: Sequence[tuple[float, _Verdict]], since: float) -> int:
    return sum(at > since for at, _ in seen)


def _are_served(seen: Sequence[tuple[float, _Verdict]], since: float) -> bool:
    """Tell whether the last answers were good ones."""
    last = [verdict for at, verdict in seen[-20:] if at > since]
    return len(last) == 20 and set(last) == {(200, None)}


def _page(number: int) -> dict[str, int]:
    start = START_MS + number * PAGE_MS
    return {"start": start, "end": start + PAGE_MS}


class _Gate:
    """A fixed address in front of a server whose port changes with each start."""

    behind = 0
    port = 0

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection's bytes both ways."""
        with suppress(OSError):
            there, back = await asyncio.open_connection(HOST, self.behind)
            await asyncio.gather(_pipe(reader, back), _pipe(there, writer))
        writer.close()


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()


@asynccontextmanager
async def _gate() -> AsyncGenerator[_Gate]:
    gate = _Gate()
    async with await asyncio.start_server(gate.forward, HOST, 0) as listening:
        gate.port = listening.sockets[0].getsockname()[1]
        yield gate
