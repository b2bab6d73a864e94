"""A database that stands still: each request ends at its deadline, with a type."""

import asyncio

from support.frozen import frozen_server
from support.sandbox import Sandbox
from support.services import serving

from mdp_core.settings import Settings

_PATHS = (
    "/coverage/binance/perp/BTC-USDT/1m?start=2024-05-01&end=2024-05-02",
    "/coverage",
    "/backfills",
    "/backfills/1",
)


async def test_frozen_database_is_told_at_the_deadline(
    settings: Settings, sandbox: Sandbox
) -> None:
    """503 `store_unavailable`; answers as before once it goes on."""
    short = settings.model_copy(update={"request_deadline_seconds": 4.0})
    async with serving(short, sandbox) as client:
        before = [(await client.get(path)).status_code for path in _PATHS]
        with frozen_server(settings.database_url):
            frozen = await asyncio.gather(*(client.get(path) for path in _PATHS))
        while (await client.get(_PATHS[0])).status_code != 200:  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(0.05)

    assert before == [200, 200, 200, 404]
    assert {(answer.status_code, answer.json()["code"]) for answer in frozen} == {
        (503, "store_unavailable")
    }
    assert all("Retry-After" in answer.headers for answer in frozen)
