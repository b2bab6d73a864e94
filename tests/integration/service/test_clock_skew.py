"""Clocks that are apart: what each question gets, and what is told as skew."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest
from support.clocks import advance
from support.sandbox import MINUTE_MS, Sandbox
from support.standing import BUSY, NOON_MS, minutes, open_times, standing
from support.waiting import eventually

from mdp_core.settings import Settings

_HOURS_MS = 5 * 60 * MINUTE_MS
EARLIER = {"clock_ahead": NOON_MS, "clock_behind": NOON_MS - _HOURS_MS}
"""The last minute that is closed by the earlier clock, and by the later one."""
LATER = {"clock_ahead": NOON_MS + _HOURS_MS, "clock_behind": NOON_MS}

each_way = pytest.mark.parametrize("fault", ["clock_ahead", "clock_behind"])
each_exchange = pytest.mark.parametrize("exchange", BUSY)


@each_exchange
@each_way
async def test_rows_before_the_earlier_clock_are_served(
    settings: Settings, exchange: str, fault: str
) -> None:
    """A limit that is filled just before it, a window that ends there; no slot more."""
    earlier = EARLIER[fault]
    start = earlier - 10 * MINUTE_MS
    async with standing(settings) as stage:
        stage.sandbox.fault(fault, exchange=exchange)
        path = f"/candles/{BUSY[exchange]}"
        exact = await stage.get(path, start=start, limit=10)
        again = await stage.get(path, start=start, limit=10)
        window = await stage.get(path, start=start, end=earlier)
        unfilled = await stage.get(path, start=start, limit=11)
        longer = await stage.get(path, start=start, end=earlier + MINUTE_MS)

    for answer in (exact, again, window):
        assert answer.status_code == 200, answer.text
        assert open_times(answer) == minutes(start, earlier)
    for answer in (unfilled, longer):
        _assert_skew(answer)


@each_exchange
@each_way
async def test_partial_answer_names_what_lies_beyond_the_earlier_clock(
    settings: Settings, exchange: str, fault: str
) -> None:
    """With a start, without one, and for a window that lies beyond it altogether."""
    earlier, later = EARLIER[fault], LATER[fault]
    start = earlier - 10 * MINUTE_MS
    async with standing(settings) as stage:
        stage.sandbox.fault(fault, exchange=exchange)
        path = f"/candles/{BUSY[exchange]}"
        to_now = await stage.get(path, start=start, partial="true")
        newest = await stage.get(path, limit=10, partial="true")
        bounded = await stage.get(path, start=start, end=later - MINUTE_MS, partial="true")
        beyond = await stage.get(path, start=earlier, end=later, partial="true")
        before = await stage.get(path, start=start, end=earlier, partial="true")

    for answer, end in ((to_now, later), (newest, later), (bounded, later - MINUTE_MS)):
        assert answer.status_code == 200, answer.text
        assert open_times(answer) == minutes(start, earlier)
        assert _missing(answer) == [{"start": earlier, "end": end, "reason": "clock_skew"}]
        assert answer.json()["end"] == end
        assert "no-store" in answer.headers["Cache-Control"]
    assert (open_times(beyond), beyond.json()["complete"]) == ([], False)
    assert _missing(beyond) == [{"start": earlier, "end": later, "reason": "clock_skew"}]
    assert before.json()["complete"] is True


@each_exchange
@each_way
async def test_coverage_and_latest_while_clocks_are_apart(
    settings: Settings, exchange: str, fault: str
) -> None:
    """Coverage is told up to the earlier clock; the newest candle lies beyond it."""
    earlier = EARLIER[fault]
    bounds = {"start": earlier - 10 * MINUTE_MS, "end": earlier}
    async with standing(settings) as stage:
        stage.sandbox.fault(fault, exchange=exchange)
        path = BUSY[exchange]
        told = await stage.get(f"/coverage/{path}", **bounds)
        refused = [
            await stage.get(f"/coverage/{path}"),
            await stage.get(f"/coverage/{path}", start=earlier, end=earlier + 60 * MINUTE_MS),
            await stage.get(f"/latest/{path}"),
            await stage.get(f"/latest/{path}", forming="true"),
        ]

    assert told.status_code == 200, told.text
    states: list[Any] = [entry["state"] for entry in told.json()["windows"]]
    assert states == ["not_fetched"]
    for answer in refused:
        _assert_skew(answer)


async def test_rows_are_kept_where_the_clock_can_not_be_read_after_they_came(
    settings: Settings, database: psycopg.Connection
) -> None:
    """Hyperliquid's memory ends somewhere: that is judged by what is known, or later."""
    window = {"start": NOON_MS - 1500 * MINUTE_MS, "end": NOON_MS - 1490 * MINUTE_MS}
    path = f"/candles/{BUSY['hyperliquid']}"
    async with standing(settings) as stage:
        await stage.candles("hyperliquid", limit=1)
        database.execute("DELETE FROM clock_offsets")
        stage.sandbox.clear()
        stage.sandbox.settings(latency_ms=250)
        asking = asyncio.create_task(stage.get(path, **window))
        await eventually(lambda: bool(_snapshots(stage.sandbox)))
        stage.sandbox.fault("server_error", exchange="hyperliquid", kind="time", times=100)
        advance(stage.clock, 5)  # the clock is to be read again
        answer = await asking
        clock_requests = [
            request for request in stage.sandbox.requests() if request["status"] == 500
        ]
        stage.sandbox.clear_faults()
        again = await stage.get(path, **window)
        pages = _snapshots(stage.sandbox)

    assert answer.status_code == 200, answer.text
    assert open_times(answer) == minutes(**window)
    assert clock_requests
    assert len(pages) == 1
    assert again.headers["X-Cache"] == "hit"


def _snapshots(sandbox: Sandbox) -> list[Any]:
    asked = [entry["params"] for entry in sandbox.requests()]
    return [params for params in asked if params.get("type") == "candleSnapshot"]


def _missing(answer: httpx.Response) -> Any:  # noqa: ANN401 - JSON
    return answer.json()["missing"]


def _assert_skew(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "clock_skew"), answer.text
    assert answer.headers["Retry-After"] == "5"
