"""Log lines of failed requests, of requests that become jobs, and of retries."""

import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import stamina
from support.http import connected
from support.sandbox import MINUTE_MS, Sandbox
from support.services import app_of, opened_services, token_of

from mdp_core.settings import Settings
from mdp_core.wiring import Services

PAGE_MS = 499 * MINUTE_MS
START_MS = 1_709_251_200_000 // PAGE_MS * PAGE_MS
PATH = "binance/perp/BTC-USDT/1m"
SERIES = "binance perp BTC-USDT 1m"
PAGE = f"start={START_MS}&end={START_MS + PAGE_MS}"
WINDOW = "2024-02-29T22:11:00Z/2024-03-01T06:30:00Z"
YEAR = "start=2023-01-01&end=2024-01-01"
YEAR_WINDOW = "2023-01-01T00:00:00Z/2024-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that fails, perhaps by a fault of the exchange, and its log line."""

    path: str
    code: str
    series: str | None = None
    window: str | None = None
    fault: str | None = None


@pytest.fixture
async def services(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[Services]:
    bounded = settings.model_copy(update={"max_pages": 10})
    async with opened_services(bounded, sandbox) as opened:
        yield opened


@pytest.fixture
async def client(
    services: Services, caplog: pytest.LogCaptureFixture
) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of services that know the series; keeps log lines, retries at once."""
    async with connected(app_of(services), token_of(services.settings)) as connected_client:
        for path in (PATH, "hyperliquid/perp/BTC/1m"):
            await connected_client.get(f"/candles/{path}?limit=1")
        with stamina.set_testing(True, attempts=2, cap=True), caplog.at_level(logging.INFO):
            caplog.clear()
            yield connected_client


def lines_about(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """Give the fields of every line of an event."""
    return [vars(record) for record in caplog.records if record.getMessage() == event]


FAILURES = [
    Failure(f"/candles/{PATH}?{PAGE}", "upstream_unavailable", SERIES, WINDOW, "server_error"),
    Failure(f"/candles/{PATH}?{PAGE}", "upstream_bad_data", SERIES, WINDOW, "ohlc_violation"),
    Failure(f"/candles/{PATH}?{YEAR}", "syncer_unavailable", SERIES, YEAR_WINDOW),
    Failure(
        f"/candles/hyperliquid/perp/BTC/1m?{YEAR}",
        "history_unavailable",
        "hyperliquid perp BTC-USDC 1m",
        YEAR_WINDOW,
    ),
    Failure(f"/candles/{PATH}?start=2024-02-01&end=2024-01-01", "invalid_window"),
    Failure("/candles/binance/perp/NOSUCH/1m", "unknown_symbol"),
    Failure("/meta/symbols?exchange=nosuch", "unknown_exchange"),
    Failure(f"/coverage/{PATH}?detail=true&{YEAR}", "limit_too_large", SERIES, YEAR_WINDOW),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda entry: entry.code)
async def test_line_of_a_failed_request_says_of_what_and_why(
    client: httpx.AsyncClient,
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
) -> None:
    """Series and window where they are known, and the code that its sender was told."""
    if failure.fault:
        sandbox.fault(failure.fault, times=100)
    answer = await client.get(failure.path)
    (line,) = lines_about(caplog, "request")

    assert answer.json()["code"] == line["code"] == failure.code
    assert line["status"] == answer.status_code
    assert line.get("series") == failure.series
    assert line.get("window") == failure.window


async def test_line_of_a_forming_candle_that_can_t_be_had_says_of_what(
    client: httpx.AsyncClient, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The slot that is forming is the window."""
    sandbox.fault("server_error", times=100)
    answer = await client.get(f"/latest/{PATH}?forming=true")
    (line,) = lines_about(caplog, "request")

    assert answer.json()["code"] == line["code"] == "upstream_unavailable"
    assert line["series"] == SERIES
    start, end = map(datetime.fromisoformat, line["window"].split("/"))
    assert end - start == timedelta(minutes=1)


async def test_line_of_a_request_that_became_a_job_says_of_what(
    client: httpx.AsyncClient, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """A 202 names no candles, but what they were to be of."""
    await services.runs.live("idle")
    answer = await client.get(f"/candles/{PATH}?{YEAR}")
    (line,) = lines_about(caplog, "request")

    assert answer.status_code == 202, answer.text
    assert (line["status"], line["series"], line["window"]) == (202, SERIES, YEAR_WINDOW)
    assert "code" not in line


@pytest.mark.parametrize("question", ["", "?forming=true"])
async def test_line_about_the_newest_candle_says_of_what(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, question: str
) -> None:
    """Each time, whether it is remembered or looked for."""
    for _ in range(2):
        assert (await client.get(f"/latest/{PATH}{question}")).status_code == 200
    lines = lines_about(caplog, "request")

    assert [line["series"] for line in lines] == [SERIES] * 2
    assert "window" in lines[0]


async def test_retry_is_one_warning_that_says_of_what_and_why(
    client: httpx.AsyncClient, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Exchange, path without query, number and delay of the attempt, and the reason."""
    sandbox.fault("server_error")
    answer = await client.get(f"/candles/{PATH}?{PAGE}")
    (line,) = lines_about(caplog, "asking the exchange again")

    assert answer.status_code == 200, answer.text
    expected = {
        "levelname": "WARNING",
        "exchange": "binance",
        "path": "/binance/fapi/v1/klines",
        "attempt": 2,
        "wait_seconds": 0,
    }
    assert {name: line[name] for name in expected} == expected
    assert "HTTP 5" in line["reason"]
    assert [record for record in caplog.records if record.name.startswith("stamina")] == []
