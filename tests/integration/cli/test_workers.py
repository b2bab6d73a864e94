"""`mdp api --workers`: processes behind one port, over one store and one budget."""

import asyncio
import signal

import httpx
import psutil
import psycopg
from support.http import answers
from support.processes import environment_of, running_api
from support.sandbox import Sandbox
from support.services import token_of
from support.stored_candles import RAISE_EPOCH
from support.waiting import eventually

from mdp_core.domain.queries import CandleQuery
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_DAY = "/candles/binance/perp/BTC-USDT/1m?start=2024-05-01&end=2024-05-02"
_QUERY = CandleQuery("binance", "perp", "BTC-USDT", "1m")
_ASKED_AT_ONCE = 12


async def _answers_of(url: str, settings: Settings) -> set[bytes]:
    """Ask at once on separate connections, shared by the workers; give what differs."""
    headers = {"Authorization": f"Bearer {token_of(settings)}"}

    async def ask() -> bytes:
        async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=60) as client:
            return (await client.get(f"{url}{_DAY}")).raise_for_status().content

    return set(await asyncio.gather(*(ask() for _ in range(_ASKED_AT_ONCE))))


def _runs(process: psutil.Process) -> bool:
    """Return whether it runs; an ended one may stay in the table until it is reaped."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def test_two_workers_answer_alike_and_leave_nothing_behind(
    settings: Settings, sandbox: Sandbox, services: Services, database: psycopg.Connection
) -> None:
    """Each page is fetched once; rows that a repair replaced are never told again."""
    with running_api(environment_of(settings, sandbox), "--workers", "2") as (process, url):
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "--multiprocessing-fork" in child.cmdline()]
        (right,) = await _answers_of(url, settings)
        fetched = [request["params"]["startTime"] for request in sandbox.candle_requests()]
        database.execute("UPDATE candles SET close = high WHERE time = '2024-05-01 12:00Z'")
        database.execute(RAISE_EPOCH)
        (wrong,) = await _answers_of(url, settings)
        report = await services.repair.repair(_QUERY)
        (mended,) = await _answers_of(url, settings)
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.poll() is not None)

        assert process.returncode == 0
        await eventually(lambda: not any(map(_runs, children)))
        assert not answers(f"{url}/health")

    assert len(workers) == 2
    assert len(fetched) == len(set(fetched))
    assert report.replaced == 1
    assert mended == right != wrong
