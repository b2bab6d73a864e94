"""Many clients, two processes: one request a page, and every answer whole."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from support.asking import answer_to
from support.http import connected
from support.sandbox import MINUTE_MS, Sandbox
from support.services import app_of, opened_services, serving, token_of
from support.waiting import eventually

from mdp_core.domain.clock import from_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.settings import Settings

PATH = "/candles/binance/perp/{symbol}/1m"
PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
PAGES = 12

_LOCK_SESSIONS = """
SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND pg_locks.database = (
    SELECT oid FROM pg_database WHERE datname = current_database())
"""


def test_overlapping_windows_of_two_processes_cost_each_page_once(
    settings: Settings, sandbox: Sandbox
) -> None:
    """Any windows in any order, from either process: requests = canonical pages."""
    names = iter(_symbols(sandbox))
    bounds = st.integers(0, PAGES * 499)
    windows = st.lists(st.tuples(bounds, bounds, st.booleans()), min_size=1, max_size=25)

    @examples(
        max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(windows)
    def check(asked: list[tuple[int, int, bool]]) -> None:
        name = next(names)
        ordered = [(min(a, b), max(a, b), other) for a, b, other in asked]
        asyncio.run(_check_windows(settings, sandbox, name, ordered))

    check()


async def _check_windows(
    settings: Settings, sandbox: Sandbox, symbol: str, asked: list[tuple[int, int, bool]]
) -> None:
    async with _two(settings, sandbox) as clients:
        sandbox.clear()
        answers = await asyncio.gather(
            *(_ask(clients[other], symbol, first, stop) for first, stop, other in asked)
        )
        pages = {
            page
            for first, stop, _ in asked
            for page in range(first // 499, -(-stop // 499))
            if first < stop
        }
    for (first, stop, _), answer in zip(asked, answers, strict=True):
        assert answer.status_code == 200, answer.text
        assert [row[0] for row in answer.json()["candles"]] == _opens(first, stop)
    assert _asked_starts(sandbox) == {START_MS + page * PAGE_MS: 1 for page in pages}


async def test_fifty_clients_of_two_processes_share_every_page(
    settings: Settings, sandbox: Sandbox
) -> None:
    """Fifty different overlapping windows of a cold series at once."""
    sandbox.settings(latency_ms=50)
    async with _two(settings, sandbox) as clients:
        sandbox.clear()
        windows = [(n * 37, PAGES * 499 - n * 41) for n in range(50)]
        answers = await asyncio.gather(
            *(_ask(clients[n % 2], "BTC-USDT", *window) for n, window in enumerate(windows))
        )
    starts, truth = _asked_starts(sandbox), _truth(sandbox, "BTCUSDT")

    for (first, stop), answer in zip(windows, answers, strict=True):
        assert answer.status_code == 200, answer.text
        assert answer.json()["candles"] == truth[first:stop]
    assert starts == {START_MS + page * PAGE_MS: 1 for page in range(PAGES)}


async def test_cut_claims_cost_at_most_one_more_request_per_page(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Without its claims a process goes on, and takes new ones on a new connection."""
    sandbox.settings(latency_ms=150)
    async with _two(settings, sandbox) as clients:
        sandbox.clear()
        asking = [
            asyncio.create_task(_ask(clients[n % 2], "BTC-USDT", 0, PAGES * 499)) for n in range(8)
        ]
        await eventually(lambda: len(database.execute(_LOCK_SESSIONS).fetchall()) > 0)
        cut = {row[0] for row in database.execute(_LOCK_SESSIONS).fetchall()}
        for pid in cut:
            database.execute("SELECT pg_terminate_backend(%s)", (pid,))
        answers = await asyncio.gather(*asking)
        later = await _ask(clients[0], "BTC-USDT", PAGES * 499, (PAGES + 1) * 499)
    starts, truth = _asked_starts(sandbox), _truth(sandbox, "BTCUSDT")

    assert cut
    assert [answer.json().get("candles") for answer in answers] == [truth] * len(answers)
    assert set(starts) == {START_MS + page * PAGE_MS for page in range(PAGES + 1)}
    assert max(starts.values()) <= 2
    assert later.status_code == 200


async def test_client_that_leaves_cancels_nothing(settings: Settings, sandbox: Sandbox) -> None:
    """A page that one client gave up is there for the next: asked for once."""
    sandbox.settings(latency_ms=300)
    async with serving(settings, sandbox) as client:
        await _ask(client, "BTC-USDT", -499, 0)
        sandbox.clear()
        leaving = asyncio.create_task(_ask(client, "BTC-USDT", 0, 4 * 499))
        await eventually(lambda: len(sandbox.candle_requests()) >= 4)
        leaving.cancel()
        answer = await _ask(client, "BTC-USDT", 0, 4 * 499)

    assert answer.json()["count"] == 4 * 499
    assert _asked_starts(sandbox) == {START_MS + page * PAGE_MS: 1 for page in range(4)}


@pytest.mark.parametrize("is_same_process", [True, False])
async def test_interactive_request_overtakes_a_saturating_backfill(
    settings: Settings, sandbox: Sandbox, *, is_same_process: bool
) -> None:
    """While a backfill queues for tokens, an interactive request goes first."""
    sandbox.settings(limits="on")
    async with (
        opened_services(settings, sandbox) as one,
        connected(app_of(one), token_of(settings)) as own,
        serving(settings, sandbox) as other,
    ):
        client = own if is_same_process else other
        await _ask(client, "ETH-USDT", -499, 0)
        backfill = asyncio.create_task(
            answer_to(one, _years("BTC-USDT"), RequestContext.at(Priority.BACKFILL))
        )
        await eventually(lambda: len(sandbox.candle_requests()) > 85)
        answer = await _ask(client, "ETH-USDT", 0, 499)
        is_still_at_it = not backfill.done()
        backfill.cancel()

    assert answer.status_code == 200, answer.text
    assert is_still_at_it


async def test_page_of_a_backfill_becomes_as_urgent_as_who_joins(
    settings: Settings, sandbox: Sandbox
) -> None:
    """The page that a backfill would reach last is served at once on request."""
    sandbox.settings(limits="on")
    async with (
        opened_services(settings, sandbox) as services,
        connected(app_of(services), token_of(settings)) as client,
    ):
        await _ask(client, "BTC-USDT", -499, 0)
        years = asyncio.create_task(
            answer_to(services, _years("BTC-USDT"), RequestContext.at(Priority.BACKFILL))
        )
        await eventually(lambda: len(sandbox.candle_requests()) > 85)
        answer = await _ask(client, "BTC-USDT", 99 * 499, 100 * 499)
        is_still_at_it = not years.done()
        years.cancel()

    assert answer.status_code == 200, answer.text
    assert is_still_at_it
    assert _asked_starts(sandbox)[START_MS + 99 * PAGE_MS] == 1


async def test_who_joins_a_page_that_waits_out_a_ban_is_told_in_time(
    settings: Settings, sandbox: Sandbox
) -> None:
    """A backfill waits without end; a client that wants its page has a deadline."""
    hasty = settings.model_copy(update={"request_deadline_seconds": 1.0})
    async with (
        opened_services(hasty, sandbox) as services,
        connected(app_of(services), token_of(hasty)) as client,
    ):
        await _ask(client, "BTC-USDT", -499, 0)
        sandbox.fault("banned", retry_after=60)
        await _ask(client, "BTC-USDT", -2 * 499, -499)
        years = asyncio.create_task(
            answer_to(services, _years("BTC-USDT"), RequestContext.at(Priority.BACKFILL))
        )
        await asyncio.sleep(0.1)
        answer = await _ask(client, "BTC-USDT", 0, 499)
        is_still_at_it = not years.done()
        years.cancel()

    assert (answer.status_code, answer.json()["code"]) == (503, "rate_limited")
    assert is_still_at_it


async def test_saturation_is_told_at_once(settings: Settings, sandbox: Sandbox) -> None:
    """Two hundred may wait for pages; the next request gets `overloaded`."""
    sandbox.settings(latency_ms=1000)
    few = settings.model_copy(update={"max_waiting": 200, "subject_waiting": 200})
    async with serving(few, sandbox) as client:
        await _ask(client, "BTC-USDT", -499, 0)
        waiting = [
            asyncio.create_task(_ask(client, "BTC-USDT", n, 499 - n % 100)) for n in range(200)
        ]
        await eventually(lambda: len(sandbox.candle_requests()) == 2)
        refused = await _ask(client, "BTC-USDT", 0, 499)
        answers = await asyncio.gather(*waiting)

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert "too many requests" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert {answer.status_code for answer in answers} == {200}


async def test_exchange_that_is_down_is_not_asked_for_every_page(
    settings: Settings, sandbox: Sandbox
) -> None:
    """After the first page's attempts all waiters give up the pages not yet begun."""
    async with serving(settings, sandbox) as client:
        await _ask(client, "BTC-USDT", -499, 0)
        sandbox.clear()
        sandbox.fault("server_error", times=10_000)
        failed = await asyncio.gather(
            *(_ask(client, "BTC-USDT", 0, 100 * 499 - n) for n in range(3))
        )
        asked = len(sandbox.candle_requests())
        sandbox.clear_faults()
        answer = await _ask(client, "BTC-USDT", 0, 100 * 499)

    verdicts = {(failure.status_code, failure.json()["code"]) for failure in failed}
    assert verdicts == {(503, "upstream_unavailable")}
    assert asked <= 4 * 2 * 8
    assert answer.json()["count"] == 100 * 499


@asynccontextmanager
async def _two(
    settings: Settings, sandbox: Sandbox
) -> AsyncGenerator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Two sets of services on one database: to it, and to the exchange, two processes."""
    async with serving(settings, sandbox) as one, serving(settings, sandbox) as other:
        yield one, other


async def _ask(client: httpx.AsyncClient, symbol: str, first: int, stop: int) -> httpx.Response:
    window = {"start": START_MS + first * MINUTE_MS, "end": START_MS + stop * MINUTE_MS}
    return await client.get(PATH.format(symbol=symbol), params=window)


def _years(symbol: str) -> CandleQuery:
    start, end = from_ms(START_MS), from_ms(START_MS + 100 * PAGE_MS)
    return CandleQuery("binance", "perp", symbol, "1m", start=start, end=end)


def _symbols(sandbox: Sandbox) -> list[str]:
    info = sandbox.ask("/binance/fapi/v1/exchangeInfo")
    return [
        f"{symbol['baseAsset']}-{symbol['quoteAsset']}"
        for symbol in info["symbols"]
        if symbol["status"] == "TRADING"
        and symbol["contractType"] == "PERPETUAL"
        and symbol["onboardDate"] < START_MS
    ]


def _asked_starts(sandbox: Sandbox) -> Counter[int]:
    return Counter(int(entry["params"]["startTime"]) for entry in sandbox.candle_requests())


def _opens(first: int, stop: int) -> list[int]:
    return [START_MS + slot * MINUTE_MS for slot in range(first, stop)]


def _truth(sandbox: Sandbox, native: str) -> list[list[float]]:
    pages = itertools.count(START_MS, PAGE_MS)
    starts = itertools.islice(pages, PAGES)
    return [row for at in starts for row in sandbox.candles(native, "1m", at, at + PAGE_MS)]
