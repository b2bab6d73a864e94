"""`mdp api --workers`: several processes behind one port, over one budget and one store."""

import os
import signal

import httpx
import psutil
import psycopg
from conftest import Sandbox, answers, comes_true, token_of
from processes import environment_of, running_api

from mdp_core.answer import CandleQuery
from mdp_core.settings import Settings
from mdp_core.wiring import Services

_DAY = "/candles/binance/perp/BTC-USDT/1m?start=2024-05-01&end=2024-05-02"
_QUERY = CandleQuery("binance", "perp", "BTC-USDT", "1m")
_CONNECTIONS = 12


def _serving(pid: int) -> list[psutil.Process]:
    """Give the workers that have a connection of a client."""
    return [
        child
        for child in psutil.Process(pid).children(recursive=True)
        if any(each.status == psutil.CONN_ESTABLISHED for each in child.net_connections("tcp"))
    ]


async def test_two_workers_answer_alike_and_leave_nothing_behind(
    settings: Settings, sandbox: Sandbox, services: Services, database: psycopg.Connection
) -> None:
    """What one has in memory another's next answer replaces too, after a repair elsewhere."""
    headers = {"Authorization": f"Bearer {token_of(settings)}"}
    with running_api(environment_of(settings, sandbox), "--workers", "2") as (process, url):
        assert comes_true(lambda: len(_serving(process.pid)) == 2)
        workers = psutil.Process(process.pid).children(recursive=True)

        def ask() -> set[bytes]:
            """Ask on connections of their own: both workers take some of them."""
            return {
                httpx.get(f"{url}{_DAY}", headers=headers, trust_env=False)
                .raise_for_status()
                .content
                for _ in range(_CONNECTIONS)
            }

        (right,) = ask()
        database.execute("UPDATE candles SET close = high WHERE time = '2024-05-01 12:00Z'")
        database.execute("UPDATE series SET epoch = epoch + 1")
        (wrong,) = ask()
        changed = await services.repair.repair(_QUERY)
        (mended,) = ask()
        os.kill(process.pid, signal.SIGTERM)

        assert process.wait(20) == 0
    assert changed == 1
    assert mended == right != wrong
    assert not any(worker.is_running() for worker in workers)
    assert not answers(f"{url}/health")
    asked = [each for each in sandbox.candle_requests() if each["params"]["interval"] == "1m"]
    assert len(asked) <= 10  # the pages of a day, once, and again for the repair
