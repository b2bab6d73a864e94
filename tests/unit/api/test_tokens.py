"""Tokens: which prove who is asking, and which prove nothing."""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from fastapi import Request
from fastapi.security import SecurityScopes
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from support.strategies import steady
from typing_extensions import override

from api.auth import authorize
from api.tokens import (
    SCOPES,
    Forbidden,
    MissingKey,
    Principal,
    TokenVerifier,
    Unauthorized,
    issue_token,
)
from mdp_core.settings import TokenSettings

SECRET = "3f1c9a7be2d84056a1f7c03d9e6b58247c1de0f9"  # noqa: S105 - of the tests
RETIRED = "b7d05e2148f96ca3701b8d4fe5923c60a81e7d52"
STRANGERS = "0c94e1f7a35b28d6e07f49b1c8a26d53f1e0947b"

Algorithm = Literal["HS256", "RS256", "ES256"]


def settings(
    secret: str | None = SECRET,
    previous: str | None = None,
    algorithm: Algorithm = "HS256",
    public_key: str | None = None,
    audience: str = "mdp",
) -> TokenSettings:
    return TokenSettings(
        jwt_secret=SecretStr(secret) if secret else None,
        jwt_previous_secret=SecretStr(previous) if previous else None,
        jwt_algorithm=algorithm,
        jwt_public_key=public_key,
        jwt_audience=audience,
    )


VERIFIER = TokenVerifier(settings())


def claims(**changed: object) -> dict[str, Any]:
    """Give good claims, but for what is changed; None leaves one out."""
    good = {
        "sub": "alice",
        "aud": "mdp",
        "exp": datetime.now(UTC) + timedelta(minutes=5),
        "scope": "candles:read meta:read",
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def token(secret: str = SECRET, algorithm: str = "HS256", **changed: object) -> str:
    return jwt.encode(claims(**changed), secret, algorithm=algorithm)


def token_with(changed: dict[str, object]) -> str:
    return jwt.encode(claims(**changed), SECRET, algorithm="HS256")


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: object, payload: object, secret: str = SECRET) -> str:
    """Make tokens no library would: any header and payload, signed by HMAC SHA-256."""
    return signed_bytes(json.dumps(header).encode(), json.dumps(payload).encode(), secret)


def signed_bytes(header: bytes, payload: bytes, secret: str = SECRET) -> str:
    message = f"{segment(header)}.{segment(payload)}"
    digest = hmac.new(secret.encode(), message.encode(), hashlib.sha256).digest()
    return f"{message}.{segment(digest)}"


def seconds_from_now(seconds: int) -> int:
    return int(datetime.now(UTC).timestamp()) + seconds


def assert_refused(text: str, verifier: TokenVerifier = VERIFIER, match: str = "token") -> None:
    with pytest.raises(Unauthorized, match=match):
        verifier.verify(text)


def test_good_token_tells_who_is_asking() -> None:
    """And what they may do."""
    principal = VERIFIER.verify(token())

    assert principal == Principal("alice", frozenset({"candles:read", "meta:read"}))


def test_token_without_scope_may_do_nothing() -> None:
    """It still proves who is asking."""
    assert VERIFIER.verify(token(scope=None)) == Principal("alice", frozenset())


def test_issued_token_is_good() -> None:
    """Its scopes are those that were given."""
    text = issue_token(settings(), "alice", frozenset(SCOPES), timedelta(minutes=1))

    verified = VERIFIER.verify(text)
    assert (verified.subject, verified.scopes) == ("alice", frozenset(SCOPES))
    assert verified.token_id


def test_revoked_token_is_refused_from_then_on() -> None:
    """Also one that was verified before; one without an id can't be revoked."""
    revoked: set[str] = set()
    verifier = TokenVerifier(settings(), revoked=revoked)
    text = issue_token(settings(), "alice", frozenset(SCOPES), timedelta(minutes=1))
    revoked.add(verifier.verify(text).token_id or "")

    with pytest.raises(Unauthorized, match="revoked"):
        verifier.verify(text)


def test_issued_tokens_differ() -> None:
    """Each has an id of its own."""
    texts = {issue_token(settings(), "a", frozenset(), timedelta(minutes=1)) for _ in range(3)}

    assert len(texts) == 3


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param({"exp": datetime(2020, 1, 1, tzinfo=UTC)}, "expired", id="expired"),
        pytest.param({"exp": None}, "exp", id="never expires"),
        pytest.param({"exp": "soon"}, "exp", id="expires in words"),
        pytest.param({"exp": [1]}, "exp", id="expires in a list"),
        pytest.param({"exp": 0}, "expired", id="expired at the epoch"),
        pytest.param({"nbf": datetime(2100, 1, 1, tzinfo=UTC)}, "not yet valid", id="not yet"),
        pytest.param({"iat": datetime(2100, 1, 1, tzinfo=UTC)}, "not yet valid", id="of tomorrow"),
        pytest.param({"nbf": {}}, "nbf", id="valid from a dict"),
        pytest.param({"sub": None}, "sub", id="without a subject"),
        pytest.param({"sub": ""}, "name", id="of an empty name"),
        pytest.param({"sub": " \t"}, "name", id="of a blank name"),
        pytest.param({"aud": None}, "aud", id="without an audience"),
        pytest.param({"aud": "other"}, "[Aa]ud", id="of another audience"),
        pytest.param({"aud": "MDP"}, "[Aa]ud", id="for another spelling"),
        pytest.param({"aud": ["x", "y"]}, "[Aa]ud", id="for others"),
        pytest.param({"aud": []}, "[Aa]ud", id="for an empty list"),
        pytest.param({"aud": ""}, "[Aa]ud", id="for an empty name"),
        pytest.param({"scope": ["admin"]}, "scope", id="scopes in a list"),
        pytest.param({"scope": 7}, "scope", id="scope is a number"),
    ],
)
def test_token_with_a_wrong_claim_is_refused(changed: dict[str, object], why: str) -> None:
    """Signed by us, and yet it proves nothing now and here; the reason is told."""
    assert_refused(token_with(changed), match=f"not valid: .*{why}")


@pytest.mark.parametrize("subject", [7, True, ["alice"], {"name": "alice"}, 1.5], ids=repr)
def test_subject_must_be_text(subject: object) -> None:
    """A library that makes tokens would refuse already; others may not."""
    payload = {"sub": subject, "aud": "mdp", "exp": seconds_from_now(60)}

    assert_refused(signed({"alg": "HS256"}, payload))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("time", ["1e400", "-1e400", "NaN", "[]", "{}", '"soon"'])
def test_time_beyond_reason_is_refused(claim: str, time: str) -> None:
    """A number that is no time must not break the service."""
    good = {"sub": "alice", "aud": "mdp", "exp": seconds_from_now(60), claim: "TIME"}
    payload = json.dumps(good).replace('"TIME"', time)

    assert_refused(signed_bytes(b'{"alg":"HS256"}', payload.encode()))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": ""},
        {"alg": None},
        {"alg": ["HS256"]},
        {"alg": {}},
        {"alg": "HS512"},
        {"alg": "hs256"},
        {"alg": "RS256"},
        {"typ": "JWT"},
        {},
        [],
        "HS256",
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "kid": 7},
    ],
    ids=str,
)
def test_header_that_names_anything_but_our_algorithm_is_refused(header: object) -> None:
    """Even if the signature is ours."""
    payload = {"sub": "alice", "aud": "mdp", "exp": seconds_from_now(60)}

    assert_refused(signed(header, payload), match="not valid")


def test_unsigned_token_is_refused() -> None:
    """`alg: none`, as the library itself makes it, with and without the last dot."""
    text = jwt.encode(claims(), "", algorithm="none")

    assert_refused(text)
    assert_refused(text.rstrip("."))


def test_token_of_another_hmac_is_refused() -> None:
    """One algorithm is pinned, not a family."""
    assert_refused(token(SECRET + SECRET, "HS512"))


def test_strangers_signature_is_refused() -> None:
    """Whatever it says."""
    assert_refused(token(STRANGERS), match="signature is not ours")


@pytest.mark.parametrize("part", [0, 1, 2])
def test_tampered_token_is_refused(part: int) -> None:
    """One letter of any part."""
    parts = token().split(".")
    middle = len(parts[part]) // 2
    letter = "A" if parts[part][middle] != "A" else "B"
    parts[part] = parts[part][:middle] + letter + parts[part][middle + 1 :]

    assert_refused(".".join(parts))


def test_claims_of_another_token_are_refused() -> None:
    """A good signature, under other claims."""
    mine, theirs = token(sub="mallory").split("."), token(sub="alice").split(".")

    assert_refused(".".join((mine[0], theirs[1], mine[2])), match="signature is not ours")


def test_huge_token_is_refused_unread() -> None:
    """Even a good one: no token needs that many scopes."""
    assert_refused(token(scope="a " * 5000), match="too long")


@pytest.mark.parametrize("depth", [1000, 6000])
def test_deeply_nested_header_is_refused(depth: int) -> None:
    """A parser that runs out of stack must not take the request with it."""
    assert_refused(segment(b"[" * depth) + ".e30.e30")


@steady
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_refused(text: str) -> None:
    """As one error, which becomes a 401."""
    assert_refused(text)


@steady
@given(st.lists(st.binary(max_size=20).map(segment), max_size=5))
def test_any_segments_are_refused(segments: list[str]) -> None:
    """Closer to a token than any text."""
    assert_refused(".".join(segments))


# --- rotation


def test_both_secrets_are_good_during_a_rotation() -> None:
    """Tokens made with the previous one go on until they expire."""
    verifier = TokenVerifier(settings(previous=RETIRED))

    assert verifier.verify(token(SECRET)).subject == "alice"
    assert verifier.verify(token(RETIRED)).subject == "alice"
    assert_refused(token(STRANGERS), verifier, "signature is not ours")


def test_new_tokens_are_made_with_the_new_secret() -> None:
    """So that the previous one can be retired."""
    text = issue_token(settings(previous=RETIRED), "alice", frozenset(), timedelta(minutes=1))

    assert VERIFIER.verify(text).subject == "alice"


def test_retired_secret_is_refused() -> None:
    """Once it is gone from the settings."""
    assert_refused(token(RETIRED), match="signature is not ours")


def test_remembered_token_expires() -> None:
    """A token that was verified before its end is refused after it."""
    now = datetime.now(UTC).timestamp()
    verifier = TokenVerifier(settings(), lambda: now)
    text = token()
    assert verifier.verify(text).subject == "alice"

    now += 301

    assert_refused(text, verifier, "expired")


class _CountingVerifier(TokenVerifier):
    count = 0

    @override
    def verify(self, token: str) -> Principal:
        self.count += 1
        return super().verify(token)


async def test_request_has_its_token_verified_once() -> None:
    """The application and the route both demand a good token; it is verified for both."""
    verifier = _CountingVerifier(settings())
    headers = [(b"authorization", f"Bearer {token()}".encode())]
    scope = {"type": "http", "path": "/x", "headers": headers, "state": {"verifier": verifier}}

    for scopes in ([], ["candles:read"]):
        await authorize(Request(scope), SecurityScopes(scopes))

    assert verifier.count == 1
    with pytest.raises(Forbidden, match="backfill:write"):
        await authorize(Request(scope), SecurityScopes(["backfill:write"]))


def test_expired_token_of_the_previous_secret_is_refused() -> None:
    """A rotation makes nothing younger, and the reason is told."""
    verifier = TokenVerifier(settings(previous=RETIRED))

    assert_refused(token(RETIRED, exp=datetime(2020, 1, 1, tzinfo=UTC)), verifier, "expired")


# --- public keys


@dataclass(frozen=True)
class Keys:
    """A pair of keys as PEM text."""

    algorithm: Algorithm
    private: str
    public: str

    @property
    def verifier(self) -> TokenVerifier:
        return TokenVerifier(settings(None, None, self.algorithm, self.public))


def keys_of(algorithm: Algorithm, key: PrivateKeyTypes) -> Keys:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Keys(algorithm, private.decode(), public.decode())


def new_keys(algorithm: Algorithm) -> Keys:
    if algorithm == "RS256":
        return keys_of(algorithm, rsa.generate_private_key(65537, 2048))
    return keys_of(algorithm, ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module", params=["RS256", "ES256"])
def keys(request: pytest.FixtureRequest) -> Keys:
    return new_keys(request.param)


def test_token_of_the_private_key_is_good(keys: Keys) -> None:
    """The service itself holds the public key alone."""
    text = token(keys.private, keys.algorithm)

    assert keys.verifier.verify(text).subject == "alice"


def test_token_of_another_private_key_is_refused(keys: Keys) -> None:
    """Whatever it says."""
    other = new_keys(keys.algorithm)

    assert_refused(token(other.private, keys.algorithm), keys.verifier, "signature is not ours")


def test_key_that_a_token_brings_along_is_not_used(keys: Keys) -> None:
    """The signer may put a key, or a place to fetch one from, into the header."""
    other = new_keys(keys.algorithm)
    named = {"kid": "/dev/null", "jku": "https://mallory.example/keys", "x5c": [other.public]}
    text = jwt.encode(claims(), other.private, keys.algorithm, {**named, "jwk": {"k": "AA"}})
    payload = {"sub": "mallory", "aud": "mdp", "exp": seconds_from_now(60)}

    assert_refused(text, keys.verifier, "signature is not ours")
    assert_refused(signed({"alg": "HS256", **named}, payload, ""), match="signature is not ours")


def test_public_key_is_no_secret(keys: Keys) -> None:
    """The classic confusion: the public key is known, and could sign HS256."""
    payload = {"sub": "mallory", "aud": "mdp", "exp": seconds_from_now(60)}

    for secret in (keys.public, keys.public.strip()):
        assert_refused(signed({"alg": "HS256"}, payload, secret), keys.verifier, "not valid")
        assert_refused(signed({"alg": keys.algorithm}, payload, secret), keys.verifier)


def test_secret_is_not_accepted_beside_a_public_key(keys: Keys) -> None:
    """One algorithm at a time: a secret that is still set opens nothing."""
    verifier = TokenVerifier(settings(SECRET, RETIRED, keys.algorithm, keys.public))

    assert_refused(token(SECRET), verifier)
    assert_refused(token(RETIRED), verifier)


def test_claims_are_checked_whoever_signed(keys: Keys) -> None:
    """Expiry and audience, as with a secret."""
    for changed in ({"exp": datetime(2020, 1, 1, tzinfo=UTC)}, {"aud": "other"}, {"exp": None}):
        text = jwt.encode(claims(**changed), keys.private, algorithm=keys.algorithm)
        assert_refused(text, keys.verifier)


# --- settings without a key


def test_verifier_needs_a_key() -> None:
    """It is missed at the start, not at the first request."""
    with pytest.raises(MissingKey, match="JWT_SECRET"):
        TokenVerifier(settings(None))
    with pytest.raises(MissingKey, match="JWT_SECRET"):
        TokenVerifier(settings(None, RETIRED))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_verifier_of_signatures_needs_a_public_key(algorithm: Algorithm) -> None:
    """A secret does not stand in for it."""
    for public_key in (None, ""):
        with pytest.raises(MissingKey, match="MDP_JWT_PUBLIC_KEY"):
            TokenVerifier(settings(SECRET, None, algorithm, public_key))


def test_public_key_that_cannot_verify_is_missed_at_the_start(keys: Keys) -> None:
    """Or every request would fail, one after the other."""
    other: Algorithm = "ES256" if keys.algorithm == "RS256" else "RS256"

    for lacking in (
        settings(None, None, keys.algorithm, "not a key"),
        settings(None, None, other, keys.public),
        settings(None, None, keys.algorithm, keys.private),
    ):
        with pytest.raises(MissingKey):
            TokenVerifier(lacking)


def test_tokens_are_made_with_a_secret_only() -> None:
    """The private key is elsewhere."""
    for lacking in (settings(None), settings(SECRET, None, "ES256", "key")):
        with pytest.raises(MissingKey):
            issue_token(lacking, "alice", frozenset(), timedelta(minutes=1))
