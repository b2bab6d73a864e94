"""The exchange's limit is never exceeded; every process believes its headers."""

import asyncio
import time

import httpx
import psycopg
import pytest
from support.sandbox import MINUTE_MS, Sandbox
from support.services import opened_services, serving

from mdp_core.errors import RateLimited
from mdp_core.exchanges.http import ExchangeHttp
from mdp_core.ratelimit.budget import Budget
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority
from mdp_core.ratelimit.scheduler import RequestScheduler
from mdp_core.ratelimit.tariff import Tariff
from mdp_core.settings import Settings
from mdp_core.wiring import Services

PATH = "/candles/binance/perp/BTC-USDT/1m"
PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
WINDOW = {"start": START_MS, "end": START_MS + PAGE_MS}


async def test_refusal_of_one_process_holds_the_others_back(
    settings: Settings, sandbox: Sandbox
) -> None:
    """After a 429 no process behind the egress asks until its Retry-After is over."""
    patient = settings.model_copy(update={"fetch_deadline_seconds": 20.0})
    async with serving(patient, sandbox) as one, serving(patient, sandbox) as other:
        for client in (one, other):
            await client.get(PATH, params={"end": START_MS, "limit": 1})
        sandbox.clear()
        sandbox.fault("rate_limited", retry_after=3)
        windows = [_page(1), _page(2)]
        answers = await asyncio.gather(
            one.get(PATH, params=windows[0]), other.get(PATH, params=windows[1])
        )
    asked = sandbox.candle_requests()
    refused = next(entry["at"] for entry in asked if entry["status"] == 429)
    # The other may have its tokens in hand already, and its request nearly on the way.
    after = [entry["at"] - refused for entry in asked if entry["at"] > refused + 1000]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [entry["status"] for entry in asked].count(429) == 1
    assert after
    assert min(after) >= 2900


async def test_other_egress_is_not_held_back(settings: Settings, sandbox: Sandbox) -> None:
    """Another address has its own budget: a block of one does not block the other."""
    elsewhere = settings.model_copy(update={"egress": "elsewhere"})
    short = settings.model_copy(update={"request_deadline_seconds": 2.0})
    async with serving(short, sandbox) as blocked, serving(elsewhere, sandbox) as free:
        await blocked.get(PATH, params={"end": START_MS, "limit": 1})
        sandbox.fault("rate_limited", retry_after=30)
        refused = await blocked.get(PATH, params=_page(1))
        answer = await free.get(PATH, params=_page(1))

    assert (refused.status_code, refused.json()["code"]) == (503, "rate_limited")
    assert answer.status_code == 200


async def test_block_outlives_the_process_that_met_it(settings: Settings, sandbox: Sandbox) -> None:
    """A restart evades no ban: the next process waits too, and `/health` says why."""
    short = settings.model_copy(update={"request_deadline_seconds": 2.0})
    async with serving(short, sandbox) as client:
        await client.get(PATH, params={"end": START_MS, "limit": 1})
        sandbox.fault("banned", retry_after=60)
        await client.get(PATH, params=_page(1))
    sandbox.clear()
    async with serving(short, sandbox) as client:
        answer = await client.get(PATH, params=_page(1))
        health = (await client.get("/health")).json()
    (block,) = health["exchanges"]["binance"]["blocked"]

    assert (answer.status_code, answer.json()["code"]) == (503, "rate_limited")
    assert 50 <= int(answer.headers["Retry-After"]) <= 60
    assert (block["egress"], block["why"]) == ("default", "HTTP 418")
    assert sandbox.candle_requests() == []


async def test_weight_that_others_used_lowers_what_is_left(
    settings: Settings, sandbox: Sandbox
) -> None:
    """A neighbour's requests, seen in the header, count: both keep the limit together."""
    sandbox.settings(limits="on")
    impatient = settings.model_copy(update={"request_deadline_seconds": 2.0})
    async with serving(impatient, sandbox) as client:
        await _early_in_a_minute()
        await client.get(PATH, params={"end": START_MS, "limit": 1})
        _use_up(sandbox, 2390)
        sandbox.clear()
        answers = [await client.get(PATH, params=_page(n)) for n in range(1, 7)]
    asked = sandbox.candle_requests()

    assert {entry["status"] for entry in asked} == {200}
    assert len(asked) < len(answers)
    assert [answer.status_code for answer in answers] == [
        200 if n < len(asked) else 503 for n in range(len(answers))
    ]
    assert answers[-1].json()["code"] == "rate_limited"


@pytest.mark.timeout(180)
async def test_burst_of_cold_pages_is_never_refused(settings: Settings, sandbox: Sandbox) -> None:
    """With the whole share and the real limit, at full speed: not one 429."""
    sandbox.settings(limits="on")
    begun = time.monotonic()
    async with serving(settings, sandbox) as client:
        asks = [client.get(PATH, params=_pages(75 * n, 75 * n + 75)) for n in range(3)]
        answers = await asyncio.gather(*asks)
    seconds = time.monotonic() - begun
    asked = sandbox.requests()
    weight = sum(2 if entry["params"].get("limit") == "499" else 1 for entry in asked)

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {entry["status"] for entry in asked} == {200}
    assert weight <= 240 + 36 * (seconds + 1)
    assert weight >= 450


async def test_bucket_gives_what_it_holds_and_then_makes_wait(services: Services) -> None:
    """The capacity at once; the rest is refused with the time to wait, and not spent."""
    budget = Budget(services.database, "binance", "default", Tariff(10, 10), share=1.0)
    scheduler = RequestScheduler("binance", budget, slots=1)
    now = asyncio.get_running_loop().time
    await scheduler.pay(10, RequestContext(), until=now() + 1)
    with pytest.raises(RateLimited) as caught:
        await scheduler.pay(10, RequestContext(), until=now() + 0.1)
    begun = now()
    await scheduler.pay(10, RequestContext(), until=now() + 5)
    waited = now() - begun

    assert 0.3 < caught.value.retry_after_seconds <= 1.0
    assert waited >= 0.2


async def test_tokens_in_hand_are_no_way_around_a_block(services: Services) -> None:
    """A request with tokens waits like all others after a stop, and loses none."""
    budget = Budget(services.database, "binance", "default", Tariff(100, 0.001), share=1.0)
    scheduler = RequestScheduler("binance", budget, slots=2)
    now = asyncio.get_running_loop().time
    context = RequestContext(until=now() + 5)
    async with scheduler.permit(10, context) as permit:
        await scheduler.block(0.5, "HTTP 429")
        begun = now()
        await scheduler.pay(10, context.holding(permit), until=now() + 5)
        waited = now() - begun
    left = await budget.take([80], Priority.INTERACTIVE)

    assert waited >= 0.4
    assert left.count == 1


async def test_backfill_leaves_enough_for_the_heaviest_request(services: Services) -> None:
    """Otherwise light requests would take every token before a heavy one can."""
    budget = Budget(
        services.database, "binance", "default", Tariff(100, 0.001), share=1.0, heaviest=40
    )
    backfill = await budget.take([7] * 20, Priority.BACKFILL)
    heavy = await budget.take([40], Priority.INTERACTIVE)

    assert backfill.count == (100 - 40) // 7
    assert heavy.count == 1


@pytest.mark.parametrize("charged", [5, 120], ids=["less", "more than the bucket holds"])
async def test_what_an_answer_costs_is_settled_whichever_way_it_differs(
    services: Services, sandbox: Sandbox, database: psycopg.Connection, charged: int
) -> None:
    """Tokens reserved too many are returned; too few leave a debt."""
    budget = Budget(services.database, "hyperliquid", "own", Tariff(100, 0.001), share=1.0)
    scheduler = RequestScheduler("hyperliquid", budget, slots=1)
    async with httpx.AsyncClient(base_url=f"{sandbox.url}/hyperliquid") as client:
        http = ExchangeHttp("hyperliquid", client, scheduler, deadline_seconds=5)
        body = {"type": "exchangeStatus"}
        await http.post_json("/info", body, lambda _: charged, weight=40, charged=float)
    row = database.execute("SELECT tokens FROM rate_budgets WHERE egress = 'own'").fetchone()

    assert row == (pytest.approx(100 - charged, abs=0.1),)


async def test_processes_share_one_bucket(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection
) -> None:
    """Many who take at once get no more tokens together than one alone would."""
    async with (
        opened_services(settings, sandbox) as one,
        opened_services(settings, sandbox) as other,
    ):
        budgets = [
            Budget(item.database, "binance", "default", Tariff(200, 0.001), share=1.0)
            for item in (one, other) * 6
        ]
        takes = (_take(budgets[n % len(budgets)]) for n in range(300))
        taken = await asyncio.gather(*takes)
    row = database.execute("SELECT tokens FROM rate_budgets").fetchone()

    assert taken.count(True) == 200
    assert row is not None
    assert 0 <= row[0] < 1


async def _take(budget: Budget) -> bool:
    taken = await budget.take([1], Priority.INTERACTIVE)
    return taken.count == 1


async def _early_in_a_minute() -> None:
    """Wait until the exchange's weight minute, in real time, has some seconds left."""
    left = 60 - time.time() % 60
    if left < 10:
        await asyncio.sleep(left)


def _use_up(sandbox: Sandbox, weight: int) -> None:
    """Be another client behind the same address."""
    with httpx.Client(base_url=sandbox.url) as neighbour:
        for _ in range(weight // 10):
            params = {"symbol": "BTCUSDT", "interval": "1d", "limit": 1500, "startTime": 1}
            neighbour.get("/binance/fapi/v1/klines", params={**params, "endTime": 2})


def _page(number: int) -> dict[str, int]:
    return _pages(number, number + 1)


def _pages(first: int, stop: int) -> dict[str, int]:
    return {"start": START_MS + first * PAGE_MS, "end": START_MS + stop * PAGE_MS}
