"""Tokens: made, and verified."""

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
from pydantic import SecretStr

from mdp_core.settings import TokenSettings

SCOPES = ("candles:read", "meta:read", "backfill:write", "dialect:read", "admin")
URL_SCOPE = "dialect:read"
"""The scope of tokens that stand in a URL, and alone so: they are good for nothing else."""

_Key: TypeAlias = str | RSAPublicKey | EllipticCurvePublicKey
_PUBLIC_KEYS = {"RS256": RSAPublicKey, "ES256": EllipticCurvePublicKey}
_LONGEST_TOKEN = 8192
# A signature is checked once: that costs more than finding candles in memory does.
_MOST_REMEMBERED = 1_000
_REQUIRED_CLAIMS = ["exp", "sub", "aud"]


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


def _principal(claims: dict[str, Any]) -> Principal:
    subject, scope = claims["sub"], claims.get("scope", "")
    if not isinstance(subject, str) or not subject.strip() or not isinstance(scope, str):
        message = "`sub` must be a name and `scope` a text"
        raise jwt.InvalidTokenError(message)
    token_id = claims.get("jti")
    return Principal(subject, frozenset(scope.split()), None if token_id is None else str(token_id))


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
