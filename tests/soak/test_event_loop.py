"""No callback holds the event loop: costly answers, by the CPU time of callbacks."""

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from itertools import product

import httpx
import psycopg
import pytest
from support.http import HOST
from support.services import served_on_loop, token_of
from support.stored_candles import BTC, FORMATS, bounds_of, fill

from mdp_core.settings import Settings
from mdp_core.wiring import Services

pytestmark = pytest.mark.soak

_LONGEST_SECONDS = 0.02


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
    async with served_on_loop(services) as port:
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
    async with served_on_loop(services) as port:
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
