"""The sandbox's controls: the log, every fault on every exchange, the settings."""

import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from mdp_core.domain.clock import Clock, to_ms
from scripts.sandbox.app import SandboxOptions, create_sandbox

HARDLY_MOVING = 1e-9
NOW = datetime(2026, 10, 7, 12, 0, 30, tzinfo=UTC)
START = datetime(2026, 9, 1, tzinfo=UTC)
START_MS = to_ms(START)
MINUTE, ROWS = 60_000, 10
END_MS = START_MS + (ROWS - 1) * MINUTE
EXCHANGES = ("binance", "hyperliquid", "coinbase")
PLACES = {  # where a row has its time, open, high, low, close, volume
    "binance": (0, 1, 2, 3, 4, 5),
    "hyperliquid": ("t", "o", "h", "l", "c", "v"),
    "coinbase": (0, 3, 2, 1, 4, 5),
}

Row = list[float]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a sandbox whose clock hardly moves."""
    app = create_sandbox(SandboxOptions(clock=Clock.starting_at(NOW, HARDLY_MOVING), limits=False))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        yield client


async def ask(client: httpx.AsyncClient, exchange: str, **changes: object) -> httpx.Response:
    """Ask one exchange for the same ten minutes of bitcoin."""
    if exchange == "binance":
        query = {"symbol": "BTCUSDT", "interval": "1m", "startTime": START_MS, "endTime": END_MS}
        sent = {key: str(value) for key, value in (query | changes).items()}
        return await client.get("/binance/fapi/v1/klines", params=sent)
    if exchange == "hyperliquid":
        now = to_ms(NOW)
        span = {"startTime": now - ROWS * MINUTE, "endTime": now - MINUTE}
        req = {"coin": "BTC", "interval": "1m", **span, **changes}
        return await client.post("/hyperliquid/info", json={"type": "candleSnapshot", "req": req})
    bounds = {"start": START.isoformat(), "end": "2026-09-01T00:09:00Z", **changes}
    params = {"granularity": "60", **{key: str(value) for key, value in bounds.items()}}
    return await client.get("/coinbase/products/ETH-EUR/candles", params=params)


def numbers(exchange: str, response: httpx.Response) -> list[Row]:
    """Give rows as time, open, high, low, close, volume, in the answer's order."""
    return [[float(row[place]) for place in PLACES[exchange]] for row in response.json()]


async def order(client: httpx.AsyncClient, exchange: str, fault: str, **more: object) -> None:
    answer = await client.post(
        "/_sandbox/faults", json=[{"exchange": exchange, "fault": fault, **more}]
    )
    assert answer.status_code == 200, answer.text


async def log(client: httpx.AsyncClient) -> list[Mapping[str, Any]]:
    return (await client.get("/_sandbox/requests")).json()


async def test_every_request_is_logged_in_order(client: httpx.AsyncClient) -> None:
    """Path without prefix, query or body as object, status, no fault, real ms."""
    before = time.time_ns() // 1_000_000
    await client.get("/binance/fapi/v1/time")
    await ask(client, "binance", symbol="NOPE")
    await client.post("/hyperliquid/info", json={"type": "meta"})
    await client.post("/hyperliquid/info", content=b"[1]")
    await ask(client, "coinbase")
    entries = await log(client)

    assert [(e["exchange"], e["method"], e["path"], e["status"]) for e in entries] == [
        ("binance", "GET", "/fapi/v1/time", 200),
        ("binance", "GET", "/fapi/v1/klines", 400),
        ("hyperliquid", "POST", "/info", 200),
        ("hyperliquid", "POST", "/info", 422),
        ("coinbase", "GET", "/products/ETH-EUR/candles", 200),
    ]
    assert entries[1]["params"]["symbol"] == "NOPE"
    assert [entries[i]["params"] for i in (0, 2, 3)] == [{}, {"type": "meta"}, {}]
    assert {entry["fault"] for entry in entries} == {None}
    times = [entry["at"] for entry in entries]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time_ns() // 1_000_000
    await client.delete("/_sandbox/requests")
    assert await log(client) == []


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    ("fault", "status"),
    [("rate_limited", 429), ("banned", 418), ("server_error", 500), ("maintenance_html", 503)],
)
async def test_fault_replaces_the_answer(
    client: httpx.AsyncClient, exchange: str, fault: str, status: int
) -> None:
    """The next candle request fails, once; the log names the fault."""
    await order(client, exchange, fault)
    failed = await ask(client, exchange)
    again = await ask(client, exchange)

    assert (failed.status_code, again.status_code) == (status, 200)
    assert len(again.json()) >= ROWS - 1
    assert [(e["status"], e["fault"]) for e in await log(client)] == [(status, fault), (200, None)]
    retry_after = failed.headers.get("retry-after")
    assert retry_after == ("1" if fault in {"rate_limited", "banned"} else None)
    is_html = failed.headers["content-type"].startswith("text/html")
    assert is_html == (fault == "maintenance_html")


async def test_retry_after_is_as_ordered(client: httpx.AsyncClient) -> None:
    """A refusal says how long to stay away."""
    await order(client, "coinbase", "rate_limited", retry_after=7)

    assert (await ask(client, "coinbase")).headers["Retry-After"] == "7"


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_body_faults_break_the_json(client: httpx.AsyncClient, exchange: str) -> None:
    """A truncated body is no JSON, a null body is `null`, an empty page has no rows."""
    for fault in ("truncated_json", "null_body", "empty_page"):
        await order(client, exchange, fault)
    whole = 0
    truncated, null, empty = [await ask(client, exchange) for _ in range(3)]

    assert [r.status_code for r in (truncated, null, empty)] == [200] * 3
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(truncated.content)
    whole = len((await ask(client, exchange)).content)
    assert len(truncated.content) == whole // 2
    assert (null.json(), empty.json()) == (None, [])


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_row_faults_spoil_what_they_name(client: httpx.AsyncClient, exchange: str) -> None:
    """Each fault changes the page in its own way and leaves the other rows alone."""
    good = numbers(exchange, await ask(client, exchange))
    spoilt: dict[str, list[Row]] = {}
    for fault in (
        *("short_page", "duplicate_rows", "conflicting_rows"),
        *("out_of_order", "off_grid", "ohlc_violation"),
    ):
        await order(client, exchange, fault)
        spoilt[fault] = numbers(exchange, await ask(client, exchange))

    ascending = sorted(good)
    assert sorted(spoilt["short_page"]) == ascending[: (len(good) + 1) // 2]
    assert len(spoilt["duplicate_rows"]) == len(good) + 1
    assert _unique(spoilt["duplicate_rows"]) == ascending
    assert len(_unique(spoilt["conflicting_rows"])) == len(good) + 1
    assert {row[0] for row in spoilt["conflicting_rows"]} == {row[0] for row in good}
    assert sorted(spoilt["out_of_order"]) == ascending
    assert spoilt["out_of_order"] not in (ascending, ascending[::-1])
    assert len(_lost(good, spoilt["off_grid"])) == 1
    (shifted,) = _lost(spoilt["off_grid"], good)
    assert shifted[0] % 60 == 7 or shifted[0] % MINUTE == 7_000
    (impossible,) = _lost(spoilt["ohlc_violation"], good)
    assert impossible[2] < impossible[3]


def _unique(rows: list[Row]) -> list[Row]:
    return [list(row) for row in sorted({tuple(row) for row in rows})]


def _lost(rows: list[Row], others: list[Row]) -> list[Row]:
    return [row for row in rows if row not in others]


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_late_candle_comes_after_its_seconds(
    client: httpx.AsyncClient, exchange: str
) -> None:
    """The newest row is missing at first, and there once its time has passed."""
    good = sorted(numbers(exchange, await ask(client, exchange)))
    await order(client, exchange, "late_candle", seconds=0.05)
    seen = list[list[Row]]()
    while good not in seen:
        seen.append(sorted(numbers(exchange, await ask(client, exchange))))

    assert all(rows == good[:-1] for rows in seen[:-1])


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_late_candle_is_withheld_from_every_answer(
    client: httpx.AsyncClient, exchange: str
) -> None:
    """While its seconds last."""
    good = sorted(numbers(exchange, await ask(client, exchange)))
    await order(client, exchange, "late_candle", seconds=3600)
    late = [sorted(numbers(exchange, await ask(client, exchange))) for _ in range(2)]

    assert late == [good[:-1]] * 2
    faults = [entry["fault"] for entry in await log(client)]
    assert faults == [None, "late_candle", "late_candle"]


async def test_faults_hit_as_often_as_ordered_and_only_what_they_select(
    client: httpx.AsyncClient,
) -> None:
    """Selectors match native or canonical requests; other requests stay whole."""
    await order(client, "binance", "server_error", times=2, symbol="ETHUSDT")
    await order(client, "binance", "banned", limit=7)
    await order(client, "coinbase", "banned", symbol="ETH-EUR", interval="1m")
    await order(client, "hyperliquid", "banned", coin="BTC", interval="1m")
    codes = [
        (await ask(client, "binance")).status_code,
        (await ask(client, "binance", symbol="ETHUSDT")).status_code,
        (await ask(client, "binance", symbol="ETHUSDT")).status_code,
        (await ask(client, "binance", symbol="ETHUSDT")).status_code,
        (await ask(client, "binance", limit=7)).status_code,
        (await ask(client, "coinbase", granularity=300)).status_code,
        (await ask(client, "coinbase")).status_code,
        (await ask(client, "hyperliquid", coin="ETH")).status_code,
        (await ask(client, "hyperliquid")).status_code,
    ]

    assert codes == [200, 500, 500, 200, 418, 200, 418, 200, 418]
    assert (await client.get("/_sandbox/faults")).json() == []


async def test_faults_wait_for_candle_requests(client: httpx.AsyncClient) -> None:
    """Metadata, times and refused requests don't use a fault up; clearing does."""
    await order(client, "binance", "server_error")
    await client.get("/binance/fapi/v1/exchangeInfo")
    await ask(client, "binance", symbol="NOPE")

    assert len((await client.get("/_sandbox/faults")).json()) == 1
    await client.delete("/_sandbox/faults")
    assert (await ask(client, "binance")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'[{"exchange": "binance"}]',
        b'[{"exchange": "kraken", "fault": "hang"}]',
        b'[{"exchange": "binance", "fault": "earthquake"}]',
        b'[{"exchange": "binance", "fault": "hang", "times": 0}]',
        b'[{"exchange": "binance", "fault": "hang", "coin": "BTC"}]',
    ],
)
async def test_unacceptable_faults_are_explained(client: httpx.AsyncClient, body: bytes) -> None:
    """A mistake in an order is answered with 422 and text, and orders nothing."""
    response = await client.post("/_sandbox/faults", content=body)

    assert response.status_code == 422
    assert len(response.json()["error"]) > 20
    assert (await client.get("/_sandbox/faults")).json() == []


async def test_settings_change_what_they_name(client: httpx.AsyncClient) -> None:
    """Latency delays every request; what is left out stays; nonsense is refused."""
    await client.post("/_sandbox/settings", json={"latency_ms": 80})
    begun = time.monotonic()
    await client.get("/coinbase/time")
    lasted = time.monotonic() - begun
    changed = await client.post("/_sandbox/settings", json={"limits": "on"})
    refused = await client.post("/_sandbox/settings", json={"latency": 1})

    assert lasted >= 0.08
    assert changed.json() == {"latency_ms": 80, "limits": "on"}
    assert refused.status_code == 422


async def test_without_limits_nobody_is_charged_or_refused(
    client: httpx.AsyncClient,
) -> None:
    """With limits off the header stays at nothing and every answer is 200."""
    answers = [await ask(client, "binance", limit=1500) for _ in range(250)]

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["X-MBX-USED-WEIGHT-1M"] for answer in answers} == {"0"}


async def test_unknown_exchange_is_not_found(client: httpx.AsyncClient) -> None:
    """A prefix that stands for no exchange says which do."""
    response = await client.get("/kraken/0/public/Time")

    assert response.status_code == 404
    assert "binance" in response.json()["error"]
    assert await log(client) == []
