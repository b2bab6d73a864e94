"""Faults that make an exchange answer something else than it was asked."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from support.sandbox_exchanges import (
    COUNT,
    EXCHANGES,
    LAST_MS,
    MINUTE,
    NOW_MS,
    PLACES,
    START_MS,
    SYMBOLS,
    ask,
    log,
    numbers,
    opened,
    order,
    raw,
    symbols_of,
    time_of,
)

each_exchange = pytest.mark.parametrize("exchange", EXCHANGES)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with opened() as client:
        yield client


@each_exchange
async def test_wrong_window_gives_the_newest_rows_whatever_was_asked(
    client: httpx.AsyncClient, exchange: str
) -> None:
    """As many rows as the right answer would have had, none of them in the window."""
    asked = START_MS - 100 * MINUTE
    good = numbers(exchange, await ask(client, exchange, start_ms=asked))
    await order(client, exchange, "wrong_window")
    wrong = numbers(exchange, await ask(client, exchange, start_ms=asked))

    assert len(wrong) == len(good) >= COUNT - 1
    assert wrong[-1][0] >= NOW_MS - 2 * MINUTE
    assert wrong[0][0] > good[-1][0]
    assert numbers(exchange, await ask(client, exchange, start_ms=asked)) == good


@each_exchange
async def test_wrong_window_answers_a_window_without_candles_too(
    client: httpx.AsyncClient, exchange: str
) -> None:
    """Before the first candle is nothing; there the fault gives the newest rows, too."""
    await order(client, exchange, "wrong_window")

    rows = numbers(exchange, await ask(client, exchange, start_ms=0))
    assert len(rows) >= COUNT
    assert rows[-1][0] >= NOW_MS - 2 * MINUTE


@each_exchange
async def test_shifted_window_gives_true_rows_of_an_overlapping_window(
    client: httpx.AsyncClient, exchange: str
) -> None:
    """The window begins half its width too early; its rows are right."""
    good = numbers(exchange, await ask(client, exchange))
    earlier = numbers(exchange, await ask(client, exchange, start_ms=START_MS - 5 * MINUTE))
    await order(client, exchange, "shifted_window")
    shifted = numbers(exchange, await ask(client, exchange))

    assert [row for row in shifted if row in good] == [row for row in earlier if row in good] != []
    assert min(shifted) < min(good)
    assert max(shifted) < max(good)


@each_exchange
@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1e-3), ("us", 1e3), ("ns", 1e6)], ids=["s", "us", "ns"]
)
async def test_wrong_unit_prints_the_right_rows_with_other_times(
    client: httpx.AsyncClient, exchange: str, unit: str, factor: float
) -> None:
    """Only the times change; at Coinbase, in seconds, `s` becomes milliseconds."""
    if (exchange, unit) == ("coinbase", "s"):
        factor = 1.0
    good = numbers(exchange, await ask(client, exchange))
    await order(client, exchange, "wrong_unit", unit=unit)
    rows = raw(exchange, await ask(client, exchange))

    time, *others = PLACES[exchange]
    assert [float(row[time]) for row in rows] == [row[0] * factor for row in good]
    assert [[float(row[place]) for place in others] for row in rows] == [row[1:] for row in good]
    assert rows[0][time] != raw(exchange, await ask(client, exchange))[0][time]


@each_exchange
@pytest.mark.parametrize("field", ["time", "open", "high", "low", "close", "volume"])
async def test_null_field_empties_one_number_of_one_row(
    client: httpx.AsyncClient, exchange: str, field: str
) -> None:
    """The middle row has a null, all else stays."""
    good = raw(exchange, await ask(client, exchange))
    await order(client, exchange, "null_field", field=field)
    rows = raw(exchange, await ask(client, exchange))

    place = PLACES[exchange][("time", "open", "high", "low", "close", "volume").index(field)]
    (spoilt,) = [row for row in rows if row not in good]
    assert spoilt[place] is None
    original = good[rows.index(spoilt)]
    spoilt[place] = original[place]
    assert spoilt == original


async def test_null_field_reaches_the_fields_that_only_some_exchanges_have(
    client: httpx.AsyncClient,
) -> None:
    """Quote volume at Binance, number of trades at Hyperliquid; none at Coinbase."""
    await order(client, "binance", "null_field", field="quote_volume")
    await order(client, "hyperliquid", "null_field", field="trades")
    refused = await client.post(
        "/_sandbox/faults",
        json=[{"exchange": "coinbase", "fault": "null_field", "field": "trades"}],
    )

    assert [row[7] for row in raw("binance", await ask(client, "binance"))].count(None) == 1
    rows = raw("hyperliquid", await ask(client, "hyperliquid"))
    assert [row["n"] for row in rows].count(None) == 1
    assert refused.status_code == 422
    assert "volume" in refused.json()["error"]


@each_exchange
async def test_error_body_comes_with_status_200(client: httpx.AsyncClient, exchange: str) -> None:
    """The body is the exchange's error as an object, not rows."""
    await order(client, exchange, "error_body")
    answer = await ask(client, exchange)

    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    assert "Too many requests" in str(body.get("msg")) or "rate limit" in str(body.get("message"))
    assert (await log(client))[-1]["fault"] == "error_body"


@each_exchange
async def test_redirect_names_its_target(client: httpx.AsyncClient, exchange: str) -> None:
    """By default a path that is not there, otherwise the one that the fault names."""
    await order(client, exchange, "redirect")
    await order(client, exchange, "redirect", location="https://elsewhere.invalid/blocked")
    default, named = [await ask(client, exchange) for _ in range(2)]

    assert (default.status_code, named.status_code) == (302, 302)
    assert (await client.get(default.headers["Location"])).status_code == 404
    assert named.headers["Location"] == "https://elsewhere.invalid/blocked"


@each_exchange
async def test_clock_faults_change_the_time_and_nothing_else(
    client: httpx.AsyncClient, exchange: str
) -> None:
    """Ahead, behind and in seconds, each as often as ordered; the candles stay true."""
    good = numbers(exchange, await ask(client, exchange))
    await order(client, exchange, "clock_ahead", kind="time", seconds=7200, times=2)
    await order(client, exchange, "clock_behind", kind="time", seconds=133_200)
    await order(client, exchange, "clock_in_seconds", kind="time")
    unchanged = numbers(exchange, await ask(client, exchange))
    told = [await time_of(client, exchange) for _ in range(5)]

    assert unchanged == good
    ahead, behind = NOW_MS + 7_200_000, NOW_MS - 133_200_000
    assert told == [ahead, ahead, behind, NOW_MS // 1000, NOW_MS]
    faults = [entry["fault"] for entry in await log(client)]
    assert faults == [None, None, *["clock_ahead"] * 2, "clock_behind", "clock_in_seconds", None]


@each_exchange
async def test_list_faults_change_the_list_and_nothing_else(
    client: httpx.AsyncClient, exchange: str
) -> None:
    """One malformed entry, an empty list, half; candle requests don't use them up."""
    good = await symbols_of(client, exchange)
    for fault in ("malformed_entry", "empty_list", "half_list"):
        await order(client, exchange, fault, kind="symbols")
    candles = await ask(client, exchange)
    malformed, empty, half, again = [await symbols_of(client, exchange) for _ in range(4)]

    assert candles.status_code == 200
    assert len(malformed) == len(good)
    assert len([entry for entry in malformed if entry not in good]) == 1
    assert empty == []
    assert half == good[: len(good) // 2] != []
    assert again == good


@each_exchange
async def test_malformed_entry_may_be_chosen(client: httpx.AsyncClient, exchange: str) -> None:
    """`symbol` names the entry, `field` the key that becomes null."""
    key = {"binance": "symbol", "hyperliquid": "name", "coinbase": "id"}[exchange]
    good = await symbols_of(client, exchange)
    await order(client, exchange, "malformed_entry", symbol=SYMBOLS[exchange], field=key)
    spoilt = await symbols_of(client, exchange)

    (place,) = [i for i, entry in enumerate(good) if entry[key] == SYMBOLS[exchange]]
    assert spoilt == [*good[:place], good[place] | {key: None}, *good[place + 1 :]]


@each_exchange
@pytest.mark.parametrize("kind", ["time", "symbols"])
async def test_other_requests_can_fail_as_candle_requests_do(
    client: httpx.AsyncClient, exchange: str, kind: str
) -> None:
    """With `kind` a failure hits the time or the list, and leaves the candles alone."""
    await order(client, exchange, "server_error", kind=kind)
    await order(client, exchange, "null_body", kind=kind)
    candles = await ask(client, exchange)
    ask_other = time_of if kind == "time" else symbols_of
    for _ in range(2):
        with suppress(TypeError, ValueError, KeyError):  # that is how a body that fails is read
            await ask_other(client, exchange)
    await ask_other(client, exchange)

    assert candles.status_code == 200
    entries = await log(client)
    assert [entry["fault"] for entry in entries] == [None, "server_error", "null_body", None]
    assert [entry["status"] for entry in entries] == [200, 500, 200, 200]


@each_exchange
async def test_new_faults_hit_only_the_series_that_they_name(
    client: httpx.AsyncClient, exchange: str
) -> None:
    """Another symbol's request, or another interval's fault, uses nothing up."""
    other = {"binance": "ETHUSDT", "hyperliquid": "ETH", "coinbase": "ETH-EUR"}[exchange]
    good = numbers(exchange, await ask(client, exchange, start_ms=LAST_MS - 30 * MINUTE))
    await order(client, exchange, "wrong_window", symbol=SYMBOLS[exchange], interval="5m")
    await order(client, exchange, "wrong_window", symbol=other, interval="1m")
    same = numbers(exchange, await ask(client, exchange, start_ms=LAST_MS - 30 * MINUTE))
    hit = await ask(client, exchange, other, LAST_MS - 30 * MINUTE)

    assert same == good
    assert numbers(exchange, hit)[-1][0] >= NOW_MS - 2 * MINUTE
    (left,) = (await client.get("/_sandbox/faults")).json()
    assert left["interval"] == "5m"


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "clock_ahead", "kind": "candles"},
        {"fault": "wrong_window", "kind": "time"},
        {"fault": "half_list", "kind": "time"},
        {"fault": "clock_ahead", "symbol": "BTCUSDT"},
        {"fault": "empty_list", "symbol": "BTCUSDT"},
        {"fault": "wrong_unit", "unit": "m"},
        {"fault": "hang", "kind": "orders"},
    ],
    ids=str,
)
async def test_orders_that_make_no_sense_are_refused(
    client: httpx.AsyncClient, fault: dict[str, str]
) -> None:
    """A fault that can hit nothing is a mistake; nothing is ordered."""
    answer = await client.post("/_sandbox/faults", json=[{"exchange": "binance", **fault}])

    assert answer.status_code == 422
    assert (await client.get("/_sandbox/faults")).json() == []
