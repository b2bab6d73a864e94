"""Browsers show answers only to pages of origins that the setting names."""

from collections.abc import AsyncGenerator

import httpx
import pytest
from support.sandbox import Sandbox
from support.services import serving

from mdp_core.settings import Settings

_PATH = "/candles/binance/perp/BTC-USDT/1h?start=2024-05-01&limit=2"
_PAGE = "https://charts.example.com"
_ALLOWED = "Access-Control-Allow-Origin"
_PREFLIGHT = {
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


@pytest.fixture
async def client(settings: Settings, sandbox: Sandbox) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a service that knows one page."""
    known = settings.model_copy(update={"cors_origins": (_PAGE,)})
    async with serving(known, sandbox) as connected_client:
        yield connected_client


async def test_named_origin_may_read_answers_and_errors(client: httpx.AsyncClient) -> None:
    """With the headers that a client of ours reads; a refused token is readable too."""
    answer = await client.get(_PATH, headers={"Origin": _PAGE})
    refused = await client.get(_PATH, headers={"Origin": _PAGE, "Authorization": "Bearer x"})

    assert (answer.status_code, refused.status_code) == (200, 401)
    assert answer.headers[_ALLOWED] == refused.headers[_ALLOWED] == _PAGE
    assert "Origin" in answer.headers["Vary"]
    told = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"ETag", "Link", "X-Version", "Retry-After"} <= set(told)
    assert {name for name in answer.headers if name.startswith("x-c")} == {
        *("x-cache", "x-complete", "x-content-type-options")
    }


async def test_preflight_needs_no_token(client: httpx.AsyncClient) -> None:
    """A browser sends none with it."""
    del client.headers["Authorization"]
    asked = await client.options(_PATH, headers={"Origin": _PAGE, **_PREFLIGHT})

    assert asked.status_code == 200
    assert asked.headers[_ALLOWED] == _PAGE
    assert "authorization" in asked.headers["Access-Control-Allow-Headers"].lower()
    assert "Access-Control-Allow-Credentials" not in asked.headers


async def test_other_origins_may_not(client: httpx.AsyncClient) -> None:
    """Their requests are answered; their browser keeps the answer to itself."""
    headers = {"Origin": "https://elsewhere.example"}
    answer = await client.get(_PATH, headers=headers)
    asked = await client.options(_PATH, headers={**headers, **_PREFLIGHT})

    assert answer.status_code == 200
    assert _ALLOWED not in answer.headers
    assert asked.status_code == 400


async def test_without_the_setting_nothing_is_allowed(settings: Settings, sandbox: Sandbox) -> None:
    """As before there was one."""
    async with serving(settings, sandbox) as plain:
        answer = await plain.get(_PATH, headers={"Origin": _PAGE})
        asked = await plain.options(_PATH, headers={"Origin": _PAGE, **_PREFLIGHT})

    assert _ALLOWED not in answer.headers
    assert asked.status_code == 405
