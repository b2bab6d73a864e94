"""Real candles, replayed by the sandbox, come through the API as in their files."""

import csv
import gzip
import re
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from support.places import DATA
from support.sandbox import MINUTE_MS, Sandbox
from support.services import serving

from mdp_core.settings import Settings

# Open time, open, high, low, close, volume: the numbers as texts.
Row = tuple[int, *tuple[str, ...]]

_STEPS = {"1m": MINUTE_MS, "5m": 5 * MINUTE_MS, "1h": 60 * MINUTE_MS}
# The minutes of the data begin days after the listing date, which is asked about twice.
_PROBES = {"1m": ["1", "2"], "5m": ["1"], "1h": ["1"]}
_PAGE_SLOTS = 499
_ROWS = re.compile(rb'"candles":\[(.*?)\],"count"', re.DOTALL)


@pytest.fixture
async def replayed(
    settings: Settings, replay_sandbox: Sandbox
) -> AsyncGenerator[httpx.AsyncClient]:
    async with serving(settings, replay_sandbox) as client:
        yield client


@pytest.mark.parametrize("interval", ["1m", "5m", "1h"])
async def test_whole_file_comes_back_number_for_number_and_again_from_the_store(
    replayed: httpx.AsyncClient, replay_sandbox: Sandbox, interval: str
) -> None:
    """Each number to the last decimal, each page once; then the same bytes, unasked."""
    rows = _file(interval)
    window = _window(rows, interval)
    first = await replayed.get(_path(interval), params=window)
    asked, probes = replay_sandbox.candle_requests(), replay_sandbox.probes()
    replay_sandbox.clear()
    second = await replayed.get(_path(interval), params=window)

    assert first.status_code == 200
    assert _decimals(_wire_rows(first.content)) == _decimals(rows)
    _assert_whole(first.json(), window, len(rows))
    _assert_each_page_once(asked, window, interval)
    assert [entry["params"]["limit"] for entry in probes] == _PROBES[interval]
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    assert second.headers["X-Upstream-Requests"] == "0"
    assert replay_sandbox.requests() == []
    assert second.content == first.content


async def test_another_process_serves_what_the_first_has_stored(
    settings: Settings, replay_sandbox: Sandbox
) -> None:
    """The store, not a process's memory, answers: a restart fetches nothing."""
    window = _window(_file("1h"), "1h")
    async with serving(settings, replay_sandbox) as client:
        first = await client.get(_path("1h"), params=window)
    replay_sandbox.clear()
    async with serving(settings, replay_sandbox) as client:
        second = await client.get(_path("1h"), params=window)

    assert second.headers["X-Cache"] == "hit"
    assert second.content == first.content
    assert replay_sandbox.requests() == []


async def test_times_are_integers_and_integral_numbers_stay_numbers(
    replayed: httpx.AsyncClient,
) -> None:
    """No time is printed as a float or a text, no price as a text."""
    rows = (await replayed.get(_path("1h"), params=_window(_file("1h"), "1h"))).json()["candles"]

    assert {type(row[0]) for row in rows} == {int}
    assert {type(number) for row in rows for number in row[1:]} <= {float, int}


def _assert_whole(body: dict[str, Any], window: dict[str, int], rows: int) -> None:
    assert (body["start"], body["end"]) == (window["start"], window["end"])
    assert body["settled_until"] == body["end"]
    assert (body["count"], body["complete"], body["next"]) == (rows, True, None)


def _assert_each_page_once(
    asked: list[dict[str, Any]], window: dict[str, int], interval: str
) -> None:
    """Absent slots to ask for once more are in the last page only, beyond the file."""
    pages = {int(entry["params"]["startTime"]) // _page_ms(interval) for entry in asked}
    first, last = window["start"], window["end"] - 1

    assert pages == set(range(first // _page_ms(interval), last // _page_ms(interval) + 1))
    assert len(asked) <= len(pages) + 1
    if interval == "1m":
        assert len(pages) in {87, 88}


def _file(interval: str) -> list[Row]:
    path = DATA / f"binance__perp__BTCUSDT__{interval}.csv.gz"
    with gzip.open(path, "rt", encoding="ascii", newline="") as text:
        _header, *rows = csv.reader(text)
    return [(int(time), *numbers) for time, *numbers in rows]


def _path(interval: str) -> str:
    return f"/candles/binance/perp/BTC-USDT/{interval}"


def _window(rows: list[Row], interval: str) -> dict[str, int]:
    return {"start": rows[0][0], "end": rows[-1][0] + _STEPS[interval]}


def _page_ms(interval: str) -> int:
    return _PAGE_SLOTS * _STEPS[interval]


def _wire_rows(body: bytes) -> list[Row]:
    """Give the rows of a body with every number as the text that was sent."""
    found = _ROWS.search(body)
    assert found is not None
    texts = (row.split(",") for row in found[1].decode().strip("[]").split("],["))
    return [(int(time), *numbers) for time, *numbers in texts]


def _decimals(rows: list[Row]) -> list[tuple[Any, ...]]:
    return [(time, *map(Decimal, numbers)) for time, *numbers in rows]
