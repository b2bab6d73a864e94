"""More cold pages than a minute's limit allows, with the limit on."""

import asyncio

import httpx
import pytest
from support.sandbox import MINUTE_MS, Sandbox
from support.services import serving

from mdp_core.settings import Settings

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

PATH = "/candles/binance/perp/BTC-USDT/1m"
PAGE_MS = 499 * MINUTE_MS
START_MS = 1_640_995_200_000 // PAGE_MS * PAGE_MS
BLOCKS = 20


async def test_two_processes_stay_within_the_limit_for_minutes(
    settings: Settings, sandbox: Sandbox
) -> None:
    """Two thousand pages, 4,000 weight at 2,400 a minute: all complete, no refusal."""
    sandbox.settings(limits="on")
    patient = settings.model_copy(
        update={"fetch_deadline_seconds": 300.0, "request_deadline_seconds": 300.0}
    )
    async with serving(patient, sandbox) as one, serving(patient, sandbox) as other:
        clients = (one, other)
        asks = [_ask(clients[block % 2], block) for block in range(BLOCKS)]
        counts = await asyncio.gather(*asks)

    assert counts == [100 * 499] * BLOCKS
    assert {entry["status"] for entry in sandbox.requests()} == {200}


async def _ask(client: httpx.AsyncClient, block: int) -> int:
    start = START_MS + block * 100 * PAGE_MS
    answer = await client.get(PATH, params={"start": start, "end": start + 100 * PAGE_MS})
    assert answer.status_code == 200, answer.text
    return answer.json()["count"]
