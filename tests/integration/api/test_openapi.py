"""The description of the API against the API: generated requests, checked answers."""

import os
import secrets
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.http import HOST, answers, ask
from support.sandbox import Sandbox
from support.waiting import wait_until

from api.app import create_app
from api.errors import PROBLEM_TYPE, every_kind
from api.responses.formats import FORMATS
from api.tokens import SCOPES, issue_token
from mdp_core.settings import Settings
from scripts.demo.ports import free_port

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Of requests made of random words few name a series: some are led to one.
SERIES = {"exchange": "coinbase", "market_type": "spot", "symbol": "BTC-USD", "interval": "1d"}
CANDLE_PATH = "{exchange}/{market_type}/{symbol}/{interval}"
WORDS = {"start": "2024-05-01", "end": "2024-05-20", "limit": 3}


@contextmanager
def running_api(database_url: str, sandbox: Sandbox, secret: str) -> Generator[str]:
    """Run `mdp api` on the sandbox's exchanges; give its URL once it answers."""
    url = f"http://{HOST}:{(port := free_port())}"
    exchanges = {
        f"MDP_{name.upper()}_URL": f"{sandbox.url}/{name}"
        for name in ("binance", "hyperliquid", "coinbase")
    }
    environment = {**os.environ, "DATABASE_URL": database_url, "JWT_SECRET": secret, **exchanges}
    command = [sys.executable, "-m", "scripts.cli.entry", "api", "--port", str(port)]
    with subprocess.Popen(command, env=environment) as process:  # noqa: S603 - our own program
        try:
            wait_until(lambda: answers(f"{url}/health"))
            yield url
        finally:
            process.terminate()


@pytest.mark.parametrize("is_known", [True, False], ids=["with a token", "without a token"])
def test_every_answer_is_one_that_the_description_tells_of(
    database_url: str,
    sandbox: Sandbox,
    is_known: bool,  # noqa: FBT001
) -> None:
    """No 500, and no status, header, type or body that is not described."""
    secret = secrets.token_hex(32)
    settings = Settings(database_url=database_url, jwt_secret=SecretStr(secret))
    token = issue_token(settings, "tester", frozenset(SCOPES), timedelta(hours=1))
    headers = {"Authorization": f"Bearer {token}"} if is_known else {}
    statuses: set[int] = set()
    with running_api(database_url, sandbox, secret) as url:
        document = ask(f"{url}/openapi.json").json()
        schema = schemathesis.openapi.from_dict(document)
        found = schema.get_all_operations()
        for operation in [result.ok() for result in found if isinstance(result, Ok)]:

            @seed(1)
            @hypothesis_settings(
                max_examples=5 if is_known else 1,  # strangers are refused whatever they ask
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            )
            @given(
                case=operation.as_strategy(),
                words=st.fixed_dictionaries({}, optional={k: st.just(v) for k, v in WORDS.items()}),
                leads=st.booleans(),
            )
            def check(
                case: schemathesis.Case[Any], words: dict[str, str | int], *, leads: bool
            ) -> None:
                if leads and "symbol" in (case.path_parameters or {}):
                    case.path_parameters = SERIES
                    case.query = words
                answer = case.call(base_url=url, headers=headers)
                statuses.add(answer.status_code)
                case.validate_response(answer, checks=CHECKS)

            check()

    assert statuses >= ({200, 404, 422} if is_known else {200, 401})


def operations() -> list[tuple[str, dict[str, Any]]]:
    paths = create_app().openapi()["paths"]
    return [
        (f"{method} {path}", operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


@pytest.mark.parametrize(("name", "operation"), operations(), ids=lambda item: str(item)[:40])
def test_every_answer_has_a_schema_and_an_example_that_keeps_it(
    name: str, operation: dict[str, Any]
) -> None:
    """For every status and each format with a text; each parameter is explained."""
    components = create_app().openapi()["components"]
    assert operation["description"]
    assert all(parameter["description"] for parameter in operation.get("parameters", []))
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        assert bool(content) is (status != "304"), (name, status)
        for media_type, described in content.items():
            assert described["schema"], (name, status, media_type)
            if described["schema"].get("format") == "binary":
                continue
            examples = [entry["value"] for entry in described.get("examples", {}).values()]
            for example in examples or [described["example"]]:
                jsonschema.validate(example, {**described["schema"], "components": components})


def test_formats_that_are_described_are_those_that_are_written() -> None:
    """Each of them, by its media type."""
    described = dict(operations())[f"get /candles/{CANDLE_PATH}"]["responses"]["200"]["content"]

    assert {*described} == {form.media_type for form in FORMATS.values()}


def test_errors_that_a_stranger_can_meet_are_described_everywhere() -> None:
    """Any route can be asked wrongly or without a token; most need the store."""
    storeless = {"/meta/exchanges", "/meta/intervals", "/health/live"}
    for name, operation in operations():
        path = name.partition(" ")[2]
        expected = {"414", "431", "500"} | (set() if path.startswith("/health") else {"401", "403"})
        assert expected <= {*operation["responses"]}, name
        assert ("503" in operation["responses"]) is (path not in storeless), name


def test_every_answer_is_described_with_its_request_id() -> None:
    """A 200 and a 202 as well as an error."""
    for name, operation in operations():
        for status, answer in operation["responses"].items():
            assert answer["headers"]["X-Request-Id"]["required"], (name, status)


def test_only_what_is_public_needs_no_token() -> None:
    """Programs made from the description send the token, with the named scope."""
    needed = {name: operation["security"] for name, operation in operations()}

    assert needed.pop("get /health") == needed.pop("get /health/live") == []
    assert all(len(scheme["HTTPBearer"]) == 1 for (scheme,) in needed.values())


def test_every_error_is_described_somewhere() -> None:
    """By an operation, or, where it belongs to none, by the text about all."""
    text = create_app().openapi()["info"]["description"]
    of_operations = {code for _, operation in operations() for code in codes(operation)}
    elsewhere = {kind.code for kind in every_kind()} - of_operations

    assert elsewhere == {"method_not_allowed"}
    assert all(f"`{code}`" in text for code in elsewhere)
    assert "405" in text


ALWAYS = {"uri_too_long", "headers_too_large", "internal_error"}
TOKEN = {"unauthorized", "forbidden"}
MARKET = {"unknown_exchange", "unknown_market_type", "invalid_parameter"}
ASKED_FOR_SYMBOLS = {
    *("upstream_rejected", "upstream_bad_data"),
    *("upstream_unavailable", "rate_limited", "overloaded", "quota_exceeded", "store_unavailable"),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("get /health", set()),
        ("get /health/live", set()),
        ("get /meta/exchanges", TOKEN | MARKET),
        ("get /meta/intervals", TOKEN | MARKET),
        ("get /meta/symbols", TOKEN | MARKET | ASKED_FOR_SYMBOLS),
        ("get /backfills", TOKEN | {"invalid_parameter", "store_unavailable"}),
        ("get /backfills/{job}", TOKEN | {"invalid_parameter", "not_found", "store_unavailable"}),
        (
            "delete /backfills/{job}",
            TOKEN | {"invalid_parameter", "not_found", "store_unavailable"},
        ),
    ],
)
def test_what_asks_for_no_candles_tells_of_none_of_their_errors(
    name: str, expected: set[str]
) -> None:
    """Exactly what can come of it; a window is no part of these questions."""
    assert codes(dict(operations())[name]) == ALWAYS | expected


def codes(operation: dict[str, Any]) -> set[str]:
    """Give the codes of the problem bodies that an operation describes."""
    bodies = [
        answer["content"][PROBLEM_TYPE]
        for answer in operation["responses"].values()
        if PROBLEM_TYPE in answer.get("content", {})
    ]
    return {code for body in bodies for code in body["schema"]["properties"]["code"]["enum"]}
