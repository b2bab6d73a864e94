"""Authorization: every way a token can be wrong, on every route."""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from fastapi import APIRouter, FastAPI
from pydantic import SecretStr
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from support.http import connected
from support.sandbox import Sandbox
from support.services import app_of, opened_services, token_of

from api.auth import PUBLIC_PATHS
from api.page import ASSETS_PATH, PAGE_PATH
from api.tokens import MissingKey, TokenVerifier
from mdp_core.settings import Settings

PATH = "/candles/binance/perp/BTC-USDT/1m?start=2024-03-01&end=2024-03-01T00:01"


@pytest.fixture
def claims() -> dict[str, Any]:
    """The claims of a good token."""
    return {
        "sub": "somebody",
        "aud": "mdp",
        "scope": "candles:read",
        "exp": datetime.now(UTC) + timedelta(minutes=5),
    }


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    """A client without a token."""
    async with connected(app, None) as connected_client:
        yield connected_client


async def test_good_token_is_let_in(
    stranger: httpx.AsyncClient, settings: Settings, claims: dict[str, Any]
) -> None:
    """The claims that the other tests spoil are good as they are."""
    answer = await _ask(stranger, _signed(claims, settings))

    assert answer.status_code == 200, answer.text


async def test_token_that_proves_nothing_is_refused(
    stranger: httpx.AsyncClient,
    settings: Settings,
    claims: dict[str, Any],
    sandbox: Sandbox,
    subtests: pytest.Subtests,
) -> None:
    """401 with a code and WWW-Authenticate for each fault; no exchange is asked."""
    for name, token in _bad_tokens(claims, settings).items():
        with subtests.test(name):
            answer = await _ask(stranger, token)

            assert answer.status_code == 401, answer.text
            assert answer.json()["code"] == "unauthorized"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert settings.jwt_secret is not None
            assert settings.jwt_secret.get_secret_value() not in answer.text
    assert sandbox.requests() == []


def _bad_tokens(claims: dict[str, Any], settings: Settings) -> Mapping[str, str]:
    now = datetime.now(UTC)
    good = _signed(claims, settings)
    head, _, signature = good.split(".")
    changed = _part({**claims, "scope": "admin", "exp": 9_999_999_999})

    def spoilt(**changes: object) -> str:
        kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return _signed(kept, settings)

    return {
        "expired": spoilt(exp=now - timedelta(seconds=1)),
        "not yet valid": spoilt(nbf=now + timedelta(minutes=1)),
        "issued in the future": spoilt(iat=now + timedelta(minutes=1)),
        "for another audience": spoilt(aud="somebody else"),
        "for no audience": spoilt(aud=None),
        "without an end": spoilt(exp=None),
        "without a subject": spoilt(sub=None),
        "of an empty name": spoilt(sub=""),
        "with a scope that is no text": spoilt(scope=["candles:read"]),
        "of an unknown secret": jwt.encode(claims, secrets.token_hex(32), algorithm="HS256"),
        "without a signature": f"{_part({'alg': 'none', 'typ': 'JWT'})}.{good.split('.')[1]}.",
        "without algorithm, signed": f"{_part({'alg': 'none'})}.{good.split('.')[1]}.{signature}",
        "with a changed payload": f"{head}.{changed}.{signature}",
        "with a cut signature": good[:-4],
        "of another HMAC": jwt.encode(claims, _secret(settings), algorithm="HS512"),
        "huge": good + "A" * 100_000,
        "huge and well signed": spoilt(padding="A" * 20_000),
        "of two parts": good.rpartition(".")[0],
        "nonsense": "nonsense",
        "not even ASCII": "t\u00f6ken",
    }


async def test_request_without_a_bearer_token_is_refused(
    stranger: httpx.AsyncClient, settings: Settings, subtests: pytest.Subtests
) -> None:
    """No header, an empty one or another scheme is as good as nothing."""
    token = token_of(settings)
    for header in (None, "", "Bearer", "Bearer ", token, f"Basic {token}", f"Token {token}"):
        with subtests.test(str(header)[:12]):
            headers = {"Authorization": header} if header is not None else {}
            answer = await stranger.get(PATH, headers=headers)

            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert "WWW-Authenticate" in answer.headers


async def test_token_in_the_query_is_no_token(
    stranger: httpx.AsyncClient, settings: Settings
) -> None:
    """Queries end up in logs: a token is taken from its header only."""
    answer = await stranger.get(f"{PATH}&token={token_of(settings)}")

    assert answer.status_code == 401


async def test_wrong_scope_is_forbidden(
    stranger: httpx.AsyncClient, token: Callable[..., str], subtests: pytest.Subtests
) -> None:
    """A good token for something else: 403, and the text names the missing scope."""
    for scope in ("meta:read", "admin", "candles:write", "candles:reader", "CANDLES:READ"):
        with subtests.test(scope):
            answer = await _ask(stranger, token(scope))

            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
            assert "candles:read" in answer.json()["detail"]


async def test_estimate_needs_the_right_to_read_and_a_fill_the_right_to_write(
    stranger: httpx.AsyncClient, token: Callable[..., str], subtests: pytest.Subtests
) -> None:
    """A reader is told what a backfill would take, and can't start one."""
    body = {"exchange": "binance", "symbols": ["BTC-USDT"], "intervals": ["1h"]}
    body |= {"start": "2024-03-01", "end": "2024-03-02"}
    expected = {
        ("candles:read", True): 200,
        ("candles:read", False): 403,
        ("backfill:write", True): 200,
        ("backfill:write", False): 503,  # allowed, but no syncer runs here
        ("meta:read", True): 403,
        ("meta:read", False): 403,
    }
    for (scope, dry_run), status in expected.items():
        with subtests.test(scope, dry_run=dry_run):
            headers = {"Authorization": f"Bearer {token(scope)}"}
            wanted = body | {"dry_run": dry_run}
            answer = await stranger.post("/backfills", json=wanted, headers=headers)

            assert answer.status_code == status, answer.text
            lacking = "candles:read" if dry_run else "backfill:write"
            assert status != 403 or lacking in answer.json()["detail"]


async def test_token_without_any_scope_is_forbidden(
    stranger: httpx.AsyncClient, settings: Settings, claims: dict[str, Any]
) -> None:
    """A missing or empty scope allows nothing."""
    for kept in ({**claims, "scope": ""}, {k: v for k, v in claims.items() if k != "scope"}):
        answer = await _ask(stranger, _signed(kept, settings))

        assert answer.status_code == 403


async def test_every_route_but_the_public_ones_refuses_strangers(
    app: FastAPI, stranger: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    """Whatever route there is or will be: closed unless it is named as public."""
    is_open = PUBLIC_PATHS | {PAGE_PATH, ASSETS_PATH}
    closed = {route for route in _routes(app.routes) if route[0] not in is_open}
    assert len({path for path, _ in closed}) >= len(app.openapi()["paths"]) - len(PUBLIC_PATHS)

    for path, method in sorted(closed):
        with subtests.test(f"{method} {path}"):
            filled = re.sub(r"\{\w+\}", "1", path)
            answer = await stranger.request(method, filled)

            assert answer.status_code == 401


async def test_documentation_needs_nobody_else(client: httpx.AsyncClient) -> None:
    """`/docs` loads its script and style from here; they need no token."""
    page = await client.get("/docs", headers={"Authorization": ""})
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)

    assert len(assets) >= 2
    for asset in assets:
        assert asset.startswith("/")
        assert (await client.get(asset, headers={"Authorization": ""})).status_code == 200


def test_public_paths_are_three() -> None:
    """Only health and the interface's description are public."""
    assert frozenset({"/health", "/health/live", "/docs", "/openapi.json"}) == PUBLIC_PATHS


async def test_public_paths_answer_strangers(stranger: httpx.AsyncClient) -> None:
    """A load balancer and a reader of the documentation need no token."""
    for path in sorted(PUBLIC_PATHS):
        assert (await stranger.get(path)).status_code == 200
        answer = await stranger.get(path, headers={"Authorization": "Bearer nonsense"})
        assert answer.status_code == 200


async def test_unknown_path_is_not_found(stranger: httpx.AsyncClient) -> None:
    """A path that no route has: 404 with a code, in the one problem body."""
    answer = await stranger.get("/nothing/here")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_both_secrets_are_good_during_a_rotation_and_a_retired_one_is_not(
    settings: Settings, sandbox: Sandbox, claims: dict[str, Any]
) -> None:
    """Tokens of the new and the previous secret are let in, older ones are not."""
    new, previous, retired = (secrets.token_hex(32) for _ in range(3))
    changes = {"jwt_secret": SecretStr(new), "jwt_previous_secret": SecretStr(previous)}
    rotated = settings.model_copy(update=changes)
    async with (
        opened_services(rotated, sandbox) as services,
        connected(app_of(services), None) as client,
    ):
        answers = [
            (await _ask(client, jwt.encode(claims, secret, algorithm="HS256"))).status_code
            for secret in (new, previous, retired)
        ]

    assert answers == [200, 200, 401]


async def test_public_key_is_no_secret_to_sign_with(
    settings: Settings, sandbox: Sandbox, claims: dict[str, Any]
) -> None:
    """With RS256 its tokens are let in, and none that HMAC signed with the key."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    changes = {"jwt_algorithm": "RS256", "jwt_public_key": public.decode()}
    asymmetric = settings.model_copy(update=changes)
    tokens = (
        jwt.encode(claims, pem, algorithm="RS256"),
        _hmac_token(claims, public),
        _signed(claims, settings),
        jwt.encode(claims, pem, algorithm="RS512"),
    )
    async with (
        opened_services(asymmetric, sandbox) as services,
        connected(app_of(services), None) as client,
    ):
        answers = [(await _ask(client, token)).status_code for token in tokens]

    assert answers == [200, 401, 401, 401]


async def test_rs256_token_is_refused_where_a_secret_is_set(
    stranger: httpx.AsyncClient, claims: dict[str, Any]
) -> None:
    """The algorithm is the service's to choose, not the token's."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    assert (await _ask(stranger, jwt.encode(claims, pem, algorithm="RS256"))).status_code == 401


def test_serving_without_a_key_is_refused(settings: Settings) -> None:
    """No secret, or no public key for the algorithm that is set: no start."""
    for changes in ({"jwt_secret": None}, {"jwt_algorithm": "RS256", "jwt_public_key": None}):
        with pytest.raises(MissingKey):
            TokenVerifier(settings.model_copy(update=changes))


def _routes(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Give path and method of every route, described by the interface or not."""
    for route in routes:
        inner: APIRouter | None = getattr(route, "original_router", None)
        if inner is not None:
            yield from _routes(inner.routes)
        elif isinstance(route, Route):
            yield from ((route.path, method) for method in route.methods or ())
        elif not _is_of_documentation(route):
            pytest.fail(f"a route of an unknown kind: {route}")


def _is_of_documentation(route: BaseRoute) -> bool:
    """Load the script and the style of `/docs`, files of a library, without a token."""
    return (
        isinstance(route, Mount)
        and isinstance(route.app, StaticFiles)
        and "fastapi_offline" in str(route.app.directory)
    )


async def _ask(client: httpx.AsyncClient, token: str) -> httpx.Response:
    headers = [(b"Authorization", f"Bearer {token}".encode())]
    return await client.get(PATH, headers=headers)


def _secret(settings: Settings) -> str:
    assert settings.jwt_secret is not None
    return settings.jwt_secret.get_secret_value()


def _signed(claims: Mapping[str, Any], settings: Settings) -> str:
    return jwt.encode(dict(claims), _secret(settings), algorithm="HS256")


def _part(content: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content, default=str).encode()).decode().rstrip("=")


def _hmac_token(claims: Mapping[str, Any], key: bytes) -> str:
    """Sign with the bytes of a public key, which PyJWT refuses to do."""
    expires = int(claims["exp"].timestamp())
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part({**claims, 'exp': expires})}"
    digest = hmac.new(key, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
