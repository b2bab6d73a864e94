"""Recorded refusals, sent by a real server: each becomes its error."""

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import stamina
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support.http import served_over_http
from support.places import DATA
from support.sandbox import Sandbox
from support.services import opened_services

from mdp_core.domain.intervals import Interval
from mdp_core.domain.series import Symbol
from mdp_core.domain.windows import Window
from mdp_core.errors import (
    BadPayload,
    ExchangeError,
    ExchangeRejected,
    ExchangeUnavailable,
    RateLimited,
)
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.settings import Settings

RECORDED = DATA.parent / "recorded"
ATTEMPTS = 4
START = datetime(2026, 10, 7, tzinfo=UTC)
HTML = b"<html><body>Attention required</body></html>"

needs_recordings = pytest.mark.skipif(
    not RECORDED.is_dir(), reason="the recordings are not beside the project"
)


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts() -> Generator[None]:
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


@dataclass(slots=True)
class Refusal:
    """A server's one answer, and the number of requests."""

    status: int = 500
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    asked: int = 0

    def become(self, status: int, body: bytes) -> None:
        self.status, self.body, self.asked = status, body, 0

    async def __call__(self, request: Request) -> Response:
        del request
        self.asked += 1
        return Response(self.body, self.status, self.headers)


@asynccontextmanager
async def refusing(
    refusal: Refusal, exchange: str, settings: Settings
) -> AsyncGenerator[ExchangeAdapter]:
    """Give the adapter of an exchange that refuses everything."""
    impatient = settings.model_copy(update={"fetch_deadline_seconds": 5.0})
    routes = [Route("/{path:path}", refusal.__call__, methods=["GET", "POST"])]
    with served_over_http(Starlette(routes=routes)) as url:
        async with opened_services(impatient, Sandbox(url)) as services:
            (adapter,) = services.resolver.directory.markets(exchange, None)
            yield adapter


async def ask(adapter: ExchangeAdapter) -> ExchangeError:
    facts = adapter.facts
    symbol = Symbol(facts.name, facts.market_type, "BTC-USD", "BTC-USD", "BTC", "USD", active=True)
    with pytest.raises(ExchangeError) as caught:
        await adapter.fetch_page(
            symbol, Interval.ONE_HOUR, Window(START, START + timedelta(days=1))
        )
    return caught.value


BODIES = {
    "binance": [
        ("usdm_error_400_invalid_interval.json", 400, ExchangeRejected, "Invalid interval"),
        ("usdm_error_400_invalid_symbol.json", 400, ExchangeRejected, "Invalid symbol"),
        ("usdm_error_400_invalid_symbol.json", 200, ExchangeRejected, "-1121 Invalid symbol."),
    ],
    "coinbase": [
        ("exchange_error_400_too_many_candles.json", 400, ExchangeRejected, "exceeds 300"),
        ("exchange_error_404_not_found.json", 404, ExchangeRejected, "NotFound"),
        ("exchange_error_404_not_found.json", 200, ExchangeRejected, "NotFound"),
    ],
    "hyperliquid": [
        ("error_422_bad_body.txt", 422, ExchangeRejected, "deserialize the JSON body"),
        ("error_500_null_DOCUMENTED.json", 500, ExchangeUnavailable, "HTTP 500"),
        ("error_500_null_DOCUMENTED.json", 200, BadPayload, "unknown shape"),
    ],
}


@needs_recordings
@pytest.mark.parametrize("exchange", BODIES)
async def test_recorded_body_becomes_the_error_that_it_is(
    settings: Settings, exchange: str
) -> None:
    """A refused request is not sent again; what may pass is tried four times."""
    refusal = Refusal()
    async with refusing(refusal, exchange, settings) as adapter:
        for name, status, error, says in BODIES[exchange]:
            refusal.become(status, (RECORDED / f"{exchange}_{name}").read_bytes())
            raised = await ask(adapter)

            assert type(raised) is error
            assert says in str(raised)
            assert refusal.asked == (1 if error is ExchangeRejected else ATTEMPTS)


@needs_recordings
@pytest.mark.parametrize(
    ("name", "status", "headers", "seconds"),
    [
        (
            "binance_usdm_error_429_too_many_requests_DOCUMENTED.json",
            429,
            {"Retry-After": "17"},
            17,
        ),
        ("binance_usdm_error_429_too_many_requests_DOCUMENTED.json", 429, {}, 60),
        ("binance_usdm_error_429_too_many_requests_DOCUMENTED.json", 418, {}, 120),
        ("coinbase_exchange_error_429_public_rate_limit.json", 429, {}, 60),
        ("hyperliquid_error_500_null_DOCUMENTED.json", 429, {}, 60),
    ],
)
async def test_recorded_limit_stops_everything_for_as_long_as_it_says(
    settings: Settings, name: str, status: int, headers: dict[str, str], seconds: float
) -> None:
    """One request and no more: the next one is not even sent."""
    refusal = Refusal(status, (RECORDED / name).read_bytes(), headers)
    async with refusing(refusal, name.partition("_")[0], settings) as adapter:
        raised = [await ask(adapter) for _ in range(2)]

    for error in raised:
        assert isinstance(error, RateLimited)
        assert seconds - 10 < error.retry_after_seconds <= seconds
    assert refusal.asked == 1


@pytest.mark.parametrize("exchange", ["binance", "hyperliquid", "coinbase"])
async def test_html_of_whoever_stands_before_an_exchange_is_understood(
    settings: Settings, exchange: str
) -> None:
    """Firewalls and content networks answer in their own way; 403 last, for it blocks."""
    refusal = Refusal(headers={"Content-Type": "text/html"})
    outcomes: list[tuple[int, type[ExchangeError], int]] = []
    async with refusing(refusal, exchange, settings) as adapter:
        for status in (200, 451, 502, 503, 403):
            refusal.become(status, HTML)
            raised = await ask(adapter)
            outcomes.append((status, type(raised), refusal.asked))

    assert outcomes == [
        (200, BadPayload, ATTEMPTS),
        (451, ExchangeRejected, 1),
        (502, ExchangeUnavailable, ATTEMPTS),
        (503, ExchangeUnavailable, ATTEMPTS),
        (403, RateLimited, 1),
    ]
