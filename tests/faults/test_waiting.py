"""Waiting together: what each caller is told, and as whom a shared task works."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta

import httpx
import psycopg
import pytest
import stamina
from support.asking import answer_to
from support.http import connected
from support.sandbox import Sandbox
from support.services import app_of, opened_services, token_of
from support.waiting import eventually
from typing_extensions import override

from mdp_core.domain.queries import CandleQuery
from mdp_core.domain.windows import Window
from mdp_core.errors import BadPayload, RateLimited, UnknownSymbol
from mdp_core.exchanges.http import ExchangeHttp
from mdp_core.fill.pages import Page
from mdp_core.ratelimit.budget import Budget
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.ratelimit.scheduler import RequestScheduler
from mdp_core.ratelimit.tariff import Tariff
from mdp_core.settings import Settings
from mdp_core.storage.database.batching import BatchingQueue
from mdp_core.storage.jobs.rate_budgets import Grant
from mdp_core.wiring import Services

_CLAIMING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query_start > %(begun)s AND state = 'idle'
  AND query LIKE '%%pg_try_advisory_lock%%' AND pid <> pg_backend_pid()
"""
_BAN = """
UPDATE rate_budgets SET blocked_until = now() + interval '100 s' WHERE exchange = 'binance'
"""

_asked_by: ContextVar[str] = ContextVar("asked_by", default="no request")


class _WatchedBudget(Budget):
    """A budget that notes in whose context tokens are taken."""

    seen: list[str]

    @override
    async def take(self, weights: Sequence[float], priority: Priority) -> Grant:
        self.seen.append(_asked_by.get())
        return await super().take(weights, priority)


async def test_each_caller_of_a_batch_gets_an_error_of_its_own() -> None:
    """One error that many raise would mix their tracebacks; what it says is the same."""
    error = UnknownSymbol("binance", "BTC", ["BTC-USDT"])

    async def fail(_: Sequence[int]) -> Sequence[int]:
        raise error

    queue = BatchingQueue[int, int](fail)
    failed = await asyncio.gather(*(queue.submit(n) for n in range(3)), return_exceptions=True)

    assert {type(failure) for failure in failed} == {UnknownSymbol}
    assert {str(failure) for failure in failed} == {str(error)}
    assert len({id(item) for item in (*failed, error)}) == 4
    assert all(vars(failure) == vars(error) for failure in failed)


async def test_scheduler_serves_in_no_request_s_context(services: Services) -> None:
    """Its logs and counts are not those of the request that came first."""
    budget = _WatchedBudget(services.database, "binance", "own", Tariff(10, 10), share=1.0)
    budget.seen = []
    scheduler = RequestScheduler("binance", budget, slots=1)
    token = _asked_by.set("the first request")
    await scheduler.pay(1, RequestContext(), until=None)
    _asked_by.reset(token)
    await scheduler.aclose()

    assert budget.seen == ["no request"]


async def test_body_that_is_far_too_long_is_not_read(services: Services) -> None:
    """Reading stops soon after the cap; the error says how much is too much."""
    sent = 0

    class _Endless(httpx.AsyncByteStream):
        async def __aiter__(self):  # noqa: ANN204 - of the protocol
            nonlocal sent
            while sent < 100 << 20:
                sent += 1 << 20
                yield b" " * (1 << 20)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=_Endless())

    budget = Budget(services.database, "endless", "default", Tariff(1000, 10), share=1.0)
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://endless") as wire:
        scheduler = RequestScheduler("endless", budget, slots=1)
        http = ExchangeHttp("endless", wire, scheduler, deadline_seconds=30)
        with stamina.set_testing(True), pytest.raises(BadPayload, match="32 MiB"):
            await http.get_json("/candles", {}, lambda payload: payload, weight=1)

    assert sent <= 34 << 20


async def test_database_that_stands_still_is_named_and_not_the_exchange(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """The deadline passes while the coverage is read: 503 of the store."""
    hasty = settings.model_copy(update={"request_deadline_seconds": 2.0})
    path, params = "/candles/binance/perp/BTC-USDT/1m", {"end": "2024-05-01", "limit": 5}
    async with (
        opened_services(hasty, sandbox) as services,
        connected(app_of(services), token_of(hasty)) as client,
    ):
        await client.get(path, params=params)
        with database.transaction():
            database.execute("LOCK TABLE series IN ACCESS EXCLUSIVE MODE")
            answer = await client.get(path, params=params)

    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert "did not answer in time" in answer.json()["detail"]


async def test_page_that_is_back_in_the_queue_is_not_waited_for_without_end(
    services: Services, database: psycopg.Connection
) -> None:
    """Its claim was refused, then came a ban: an interactive caller is told in time."""
    query = CandleQuery("binance", "perp", "BTC-USDT", "1m", limit=1)
    series = (await answer_to(services, query)).series
    market, grid = services.markets["binance", "perp"], series.grid
    end = series.grid.floor((await market.exchange_clock.now()) - timedelta(days=30))
    index = grid.index(end) // market.page_size
    start, stop = grid.at(index * market.page_size), grid.at((index + 1) * market.page_size)
    pages = [Page(index, Window(start, stop))]
    watermarks = await market.watermarks(series, stop)
    database.execute("SELECT pg_advisory_lock(%s, %s)", (series.id, index))
    begun = _now(database)
    backfill = asyncio.create_task(
        market.filler.fill(series, pages, watermarks, RequestContext.at(Priority.BACKFILL))
    )
    await eventually(lambda: _was_claimed_since(database, begun))
    now = asyncio.get_running_loop().time()
    waiting = asyncio.create_task(
        market.filler.fill(series, pages, watermarks, RequestContext(until=now + 1))
    )
    database.execute(_BAN)
    (failure,) = await waiting
    assert not backfill.done()
    backfill.cancel()

    assert isinstance(failure.error, RateLimited)


def _now(database: psycopg.Connection) -> datetime:
    row = database.execute("SELECT clock_timestamp()").fetchone()
    assert row
    return row[0]


def _was_claimed_since(database: psycopg.Connection, begun: datetime) -> bool:
    row = database.execute(_CLAIMING, {"begun": begun}).fetchone()
    return bool(row and row[0])
