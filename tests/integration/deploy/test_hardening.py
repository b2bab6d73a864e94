"""Hardening: large requests, leaks of the inside, framing and caching."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, FastAPI
from support.http import connected
from support.services import app_of, token_of

from mdp_core.settings import Settings
from mdp_core.wiring import Services

INSIDE = "postgresql://mdp:hunter2@db/mdp"
PATH = "/meta/exchanges"


@pytest.fixture
async def client(services: Services, settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of an application with a route that breaks and one that reads a body."""
    app: FastAPI = app_of(services)

    async def break_() -> None:
        raise RuntimeError(INSIDE)

    async def measure(body: Annotated[str, Body()]) -> int:
        return len(body)

    app.add_api_route("/break", break_)
    app.add_api_route("/measure", measure, methods=["POST"])
    async with connected(app, token_of(settings), raise_app_exceptions=False) as connected_client:
        yield connected_client


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        pytest.param({"params": {"q": "x" * 9000}}, 414, "uri_too_long", id="query"),
        pytest.param({"headers": {"X-More": "x" * 17_000}}, 431, "headers_too_large", id="header"),
        pytest.param(
            {"headers": {f"X-{n}": "x" * 500 for n in range(40)}},
            431,
            "headers_too_large",
            id="many headers",
        ),
        pytest.param(
            {"headers": {"Authorization": f"Bearer {'x' * 20_000}"}},
            401,
            "unauthorized",
            id="token",
        ),
        pytest.param({"content": b"x" * 300_000}, 413, "body_too_large", id="body"),
    ],
)
async def test_request_that_is_too_large_is_refused_as_such(
    client: httpx.AsyncClient, request_: dict[str, Any], status: int, code: str
) -> None:
    """Before anything is read of it: a problem body with an id, not to be kept."""
    answer = await client.request("GET", PATH, **request_)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["Cache-Control"] == "no-store"


async def test_path_that_is_too_long_is_refused(client: httpx.AsyncClient) -> None:
    """Like a query."""
    answer = await client.get(f"/latest/binance/perp/{'x' * 9000}/1m")

    assert (answer.status_code, answer.json()["code"]) == (414, "uri_too_long")


async def test_body_of_unknown_length_is_read_up_to_the_bound(client: httpx.AsyncClient) -> None:
    """Unannounced chunks count too; smaller bodies pass."""

    async def chunks(count: int) -> AsyncIterator[bytes]:
        yield b'"'
        for _ in range(count):
            yield b"x" * 10_000
        yield b'"'

    json = {"Content-Type": "application/json"}
    small = await client.post("/measure", content=chunks(20), headers=json)
    large = await client.post("/measure", content=chunks(40), headers=json)

    assert (small.status_code, small.json()) == (200, 200_000)
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "path", [PATH, "/health", "/openapi.json", "/docs", "/nowhere", "/candles/x/y/z/1m", "/break"]
)
async def test_every_answer_has_the_headers_that_browsers_obey(
    client: httpx.AsyncClient, path: str
) -> None:
    """No guessing of types, no frames, no referrer; errors are never cached."""
    answer = await client.get(path)

    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert ("default-src 'none'" in answer.headers["Content-Security-Policy"]) == (path != "/docs")
    caching = "no-store" if answer.status_code >= 400 else "private, no-cache"
    assert answer.headers["Cache-Control"] == caching


async def test_slash_at_the_end_is_another_path(client: httpx.AsyncClient) -> None:
    """No client is sent to a host that the request itself named."""
    answer = await client.get(f"{PATH}/", headers={"Host": "elsewhere"})

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "Location" not in answer.headers


async def test_request_id_is_echoed_in_ascii_only(client: httpx.AsyncClient) -> None:
    """Control characters that a terminal would interpret are not taken over."""
    given = (b"a-1", "\xe9".encode("latin-1"))
    good, bad = [await client.get(PATH, headers={b"X-Request-Id": text}) for text in given]

    assert good.headers["X-Request-Id"] == "a-1"
    assert bad.headers["X-Request-Id"].isascii()


async def test_body_that_is_no_json_is_said_to_be_none(client: httpx.AsyncClient) -> None:
    """With where it stops being it."""
    answer = await client.post(
        "/backfills", content=b"{oops", headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == 422
    assert answer.json()["detail"] == "body, at character 1: JSON decode error"


async def test_unexpected_error_tells_nothing_of_the_inside_but_an_id(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets an id; under it the log has the rest."""
    with caplog.at_level(logging.ERROR):
        answer = await client.get("/break")
    body = answer.json()

    assert (answer.status_code, body["code"]) == (500, "internal_error")
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    assert body["request_id"] in caplog.text


async def test_no_secret_and_no_token_is_logged(
    client: httpx.AsyncClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever happens at whatever level: good requests, refused ones, broken ones."""
    assert settings.jwt_secret is not None
    forged = "e30.e30.c3RvbGVu"
    with caplog.at_level(logging.DEBUG):
        await client.get(PATH)
        await client.get(PATH, headers={"Authorization": f"Bearer {forged}"})
        await client.get("/candles/binance/perp/BTC-USDT/1d", params={"limit": 1})
        await client.get("/break")
    token = client.headers["Authorization"].removeprefix("Bearer ")
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)

    assert caplog.records
    for secret in (settings.jwt_secret.get_secret_value(), token, forged):
        assert secret not in logged
    assert settings.jwt_secret.get_secret_value() not in repr(settings)
    assert str(settings.database_url) not in repr(settings)
