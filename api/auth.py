"""Tokens: made, verified, and checked for the scopes that a route needs."""

import time
import uuid
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import jwt
from cachetools import LRUCache
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import Request
from fastapi.security import HTTPBearer, SecurityScopes
from pydantic import SecretStr
from typing_extensions import override

from mdp_core.logs import note
from mdp_core.settings import TokenSettings

SCOPES = ("candles:read", "meta:read", "backfill:write", "dialect:read", "admin")
URL_SCOPE = "dialect:read"
"""The scope of tokens that stand in a URL, and alone so: they are good for nothing else."""

# Open to every client. Every other route needs a token, whether or not it says so.
PUBLIC_PATHS = frozenset({"/health", "/health/live", "/docs", "/openapi.json"})

_Key: TypeAlias = str | RSAPublicKey | EllipticCurvePublicKey
_PUBLIC_KEYS = {"RS256": RSAPublicKey, "ES256": EllipticCurvePublicKey}
_LONGEST_TOKEN = 8192
# A signature is checked once: that costs more than finding candles in memory does.
_MOST_REMEMBERED = 1_000
_REQUIRED_CLAIMS = ["exp", "sub", "aud"]
_PRINCIPAL = "mdp.principal"


class Unauthorized(Exception):
    """No token, or one that proves nothing."""


class Forbidden(Exception):
    """The token is good, but not for this."""


class MissingKey(Exception):
    """The settings hold no key for the algorithm that they name."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller's subject, the scopes that it was given, its token's `jti`, if any."""

    subject: str
    scopes: frozenset[str]
    token_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Verified:
    """The claims of a good token; it is good before `expires` (epoch seconds)."""

    principal: Principal
    expires: int


class TokenVerifier:
    """Verifies tokens with the keys and the one algorithm of the settings.

    Args:
        settings: Algorithm, audience and keys.
        now: Epoch seconds; decides whether a token that was verified before has expired.
        revoked: Ids of tokens that are refused; may change at any time.

    Raises:
        MissingKey: There is no key.
    """

    def __init__(
        self,
        settings: TokenSettings,
        now: Callable[[], float] = time.time,
        revoked: Container[str] = frozenset(),
    ) -> None:
        self._now = now
        self._revoked = revoked
        self._algorithm = settings.jwt_algorithm
        self._audience = settings.jwt_audience
        self._keys = _verification_keys(settings)
        self._remembered: LRUCache[str, _Verified] = LRUCache(_MOST_REMEMBERED)

    def verify(self, token: str) -> Principal:
        """Return the principal that a token proves.

        Raises:
            Unauthorized: It is not signed by a key of ours with our algorithm, it is not for this
                audience, it is expired or not yet valid, it was revoked, or it lacks a claim.
        """
        verified = self._remembered.get(token)
        if verified is None:
            if len(token) > _LONGEST_TOKEN:
                message = "the token is too long"
                raise Unauthorized(message)
            verified = self._remembered[token] = self._verify(token)
        if verified.expires <= self._now():
            message = "the token is not valid: it has expired"
            raise Unauthorized(message)
        token_id = verified.principal.token_id
        if token_id is not None and token_id in self._revoked:
            message = "the token was revoked: ask for another one"
            raise Unauthorized(message)
        return verified.principal

    def _verify(self, token: str) -> _Verified:
        problem: jwt.InvalidTokenError | None = None
        for key in self._keys:
            try:
                claims = self._claims(token, key)
                return _Verified(_principal(claims), int(claims["exp"]))
            except jwt.InvalidSignatureError as error:
                problem = error  # it may be signed with the other key
            except jwt.InvalidTokenError as error:
                message = f"the token is not valid: {error}"
                raise Unauthorized(message) from error
        message = "the token's signature is not ours"
        raise Unauthorized(message) from problem

    def _claims(self, token: str, key: _Key) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[self._algorithm],
            audience=self._audience,
            options={"require": _REQUIRED_CLAIMS},
        )


def issue_token(
    settings: TokenSettings, subject: str, scopes: frozenset[str], lifetime: timedelta
) -> str:
    """Make an HS256 token for `subject`, valid from now on.

    Raises:
        MissingKey: `JWT_SECRET` is not set, or the settings name another algorithm, whose private
            key is elsewhere.
    """
    if settings.jwt_algorithm != "HS256" or settings.jwt_secret is None:
        message = "tokens are made with JWT_SECRET and MDP_JWT_ALGORITHM=HS256 only"
        raise MissingKey(message)
    now = datetime.now(UTC)
    claims = {
        "sub": subject,
        "aud": settings.jwt_audience,
        "scope": " ".join(sorted(scopes)),
        "iat": now,
        "exp": now + lifetime,
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256")


class _Authorize(HTTPBearer):
    """The check of the token that every request has to pass, as OpenAPI describes it.

    The application depends on it, so that a new route is closed by default, and each route again
    with its scopes: the token is verified once a request. A coroutine, because FastAPI sends plain
    functions to a thread at many times their cost.
    """

    @override
    async def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: Request, needed: SecurityScopes
    ) -> Principal | None:
        """Check that the token is good and holds the scopes that the route needs.

        Raises:
            Unauthorized, Forbidden: It is not, or it doesn't.
        """
        if request.scope["path"] in PUBLIC_PATHS:
            return None
        principal: Principal | None = request.scope.get(_PRINCIPAL)
        if principal is None:
            principal = request.scope[_PRINCIPAL] = await self._verified(request)
        lacking = [scope for scope in needed.scopes if scope not in principal.scopes]
        if lacking:
            message = f"the token lacks the scope {' '.join(lacking)}"
            raise Forbidden(message)
        return principal

    async def _verified(self, request: Request) -> Principal:
        credentials = await super().__call__(request)
        if credentials is None:
            message = "this needs a token: send the header `Authorization: Bearer <token>`"
            raise Unauthorized(message)
        verifier: TokenVerifier = request.state.verifier
        principal = verifier.verify(credentials.credentials)
        note(sub=principal.subject, jti=principal.token_id)
        return principal


authorize = _Authorize(
    scheme_name="HTTPBearer", auto_error=False, description="A JWT; `mdp token` makes one."
)


def verify_url_token(request: Request, token: str) -> Principal:
    """Return the principal of a token that stands in a URL.

    Raises:
        Unauthorized: It proves nothing, or is of other scopes too: URLs are copied and logged.
    """
    verifier: TokenVerifier = request.state.verifier
    principal = verifier.verify(token)
    note(sub=principal.subject, jti=principal.token_id)
    if principal.scopes != frozenset({URL_SCOPE}):
        message = f"a token that stands in a URL has the scope {URL_SCOPE}, and no other"
        raise Unauthorized(message)
    request.scope[_PRINCIPAL] = principal
    return principal


def _principal(claims: dict[str, Any]) -> Principal:
    subject, scope = claims["sub"], claims.get("scope", "")
    if not isinstance(subject, str) or not subject.strip() or not isinstance(scope, str):
        message = "`sub` must be a name and `scope` a text"
        raise jwt.InvalidTokenError(message)
    token_id = claims.get("jti")
    return Principal(subject, frozenset(scope.split()), None if token_id is None else str(token_id))


def principal_of(request: Request) -> Principal:
    """Return the caller whose token was checked for a route that is not public."""
    principal: Principal = request.scope[_PRINCIPAL]
    return principal


def _verification_keys(settings: TokenSettings) -> list[_Key]:
    if settings.jwt_algorithm != "HS256":
        return [_public_key(settings.jwt_algorithm, settings.jwt_public_key or "")]
    if settings.jwt_secret is None:
        message = "JWT_SECRET must be set: `openssl rand -hex 32` makes one"
        raise MissingKey(message)
    secrets: list[SecretStr | None] = [settings.jwt_secret, settings.jwt_previous_secret]
    return [secret.get_secret_value() for secret in secrets if secret]


def _public_key(algorithm: str, pem: str) -> _Key:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, _PUBLIC_KEYS[algorithm]):
        message = f"MDP_JWT_PUBLIC_KEY must be the PEM text of a public key for {algorithm}"
        raise MissingKey(message)
    return key
