"""Errors and their codes: what a client relies on does not change by accident."""

import logging
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import jsonschema
import orjson
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from support.strategies import utc

from api.errors import KINDS, ProblemKind, add_error_handlers, every_kind, kind_of
from api.middleware.request_id import RequestId
from api.openapi.problems import EXAMPLES, problem_responses
from api.tokens import Forbidden, Unauthorized
from mdp_core import errors
from mdp_core.domain.clock import to_ms

BRANCHES = {errors.MdpError, errors.InvalidQuery, errors.ExchangeError}
"""None of these is raised: their leaves say what is wrong."""

STABLE = {
    "InvalidParameter": (422, "invalid_parameter"),
    "InvalidWindow": (422, "invalid_window"),
    "NothingClosed": (422, "invalid_window"),
    "LimitTooLarge": (422, "limit_too_large"),
    "WindowTooLarge": (422, "window_too_large"),
    "HistoryUnavailable": (422, "history_unavailable"),
    "UnknownExchange": (404, "unknown_exchange"),
    "UnknownMarketType": (404, "unknown_market_type"),
    "UnknownSymbol": (404, "unknown_symbol"),
    "AmbiguousSymbol": (404, "unknown_symbol"),
    "UnsupportedInterval": (404, "unsupported_interval"),
    "NoCandle": (404, "not_found"),
    "NeverTraded": (404, "not_found"),
    "UnknownBackfill": (404, "not_found"),
    "ExchangeRejected": (502, "upstream_rejected"),
    "BadPayload": (502, "upstream_bad_data"),
    "BadRows": (502, "upstream_bad_data"),
    "ExchangeUnavailable": (503, "upstream_unavailable"),
    "ClockSkew": (503, "clock_skew"),
    "RateLimited": (503, "rate_limited"),
    "NoSyncer": (503, "syncer_unavailable"),
    "QuotaExceeded": (429, "quota_exceeded"),
    "Overloaded": (503, "overloaded"),
    "StoreUnavailable": (503, "store_unavailable"),
    "SchemaMissing": (503, "store_unavailable"),
    "SeriesRepaired": (503, "store_unavailable"),
    "Unauthorized": (401, "unauthorized"),
    "Forbidden": (403, "forbidden"),
    "NotAcceptable": (406, "not_acceptable"),
}

BORN = utc(2024, 6, 10)
OURS = [error for error in EXAMPLES if isinstance(error, errors.MdpError)]


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def ours() -> list[type[Exception]]:
    """List the errors of the service itself, whatever other tests may have made."""
    return [
        kind
        for kind in {errors.MdpError, *subclasses(errors.MdpError)}
        if kind.__module__.split(".")[0] in ("api", "mdp_core", "scripts")
    ]


def test_every_error_has_a_kind_on_purpose() -> None:
    """A new error is not served as an accident: it gets a code, or is a branch here."""
    assert {kind for kind in ours() if kind not in KINDS} == BRANCHES


def test_branches_have_leaves() -> None:
    """The classes left out are never raised themselves."""
    assert all(branch.__subclasses__() for branch in BRANCHES)


def test_codes_and_statuses_are_stable() -> None:
    """Clients know errors by these: to change one is to break them."""
    assert {kind.__name__: (k.status, k.code) for kind, k in KINDS.items()} == STABLE


def test_tree_in_the_docstring_is_the_tree() -> None:
    """It shows every error, under the one that it is a kind of."""
    drawn = re.findall(r"^ {4}([│ ├└─]*)(\w+)", errors.__doc__ or "", re.MULTILINE)
    above = dict[str, str]()
    path = list[str]()
    for branch, name in drawn:
        path = [*path[: len(branch) // 4], name]
        above[name] = path[-2] if len(path) > 1 else "Exception"

    tree = {errors.MdpError, *subclasses(errors.MdpError)}
    assert above == {
        kind.__name__: kind.__bases__[0].__name__
        for kind in tree
        if kind.__module__.startswith(errors.__name__)
    }


def test_unknown_error_is_internal() -> None:
    """An unexpected error says nothing about itself."""
    assert kind_of(ZeroDivisionError("secret")) == ProblemKind(500, "internal_error")


def test_error_below_a_known_one_is_of_its_kind() -> None:
    """A finer error need not be listed to be served."""

    class Sooner(errors.RateLimited):
        pass

    assert kind_of(Sooner("binance", 1.0)) == KINDS[errors.RateLimited]


# --- the problem body


def request() -> Request:
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/candles",
            "headers": [],
            "query_string": b"",
            "state": {"request_id": "0123abcd"},
        }
    )


async def answer_to(error: Exception) -> Response:
    app = FastAPI()
    add_error_handlers(app)
    kind = next(kind for kind in type(error).__mro__ if kind in app.exception_handlers)
    response: Response = await app.exception_handlers[kind](request(), error)  # pyright: ignore[reportGeneralTypeIssues]
    return response


def body_of(response: Response) -> dict[str, Any]:
    assert response.media_type == "application/problem+json"
    return orjson.loads(bytes(response.body))


def test_every_error_has_an_example() -> None:
    """The tests below look at each, and the interface's description shows it."""
    assert {type(error) for error in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
async def test_error_is_answered_with_the_problem_body(error: errors.MdpError) -> None:
    """RFC 9457, with the stable code and the request's id."""
    response = await answer_to(error)
    status, code = STABLE[type(error).__name__]

    body = body_of(response)

    assert response.status_code == body["status"] == status
    assert body["code"] == code
    assert body["type"] == "about:blank"
    assert body["title"] == code.replace("_", " ")
    assert body["detail"] == str(error)
    assert body["request_id"] == "0123abcd"


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
async def test_error_that_may_pass_says_when_to_come_back(error: errors.MdpError) -> None:
    """503 has Retry-After, whole seconds, at least one; nothing else has it."""
    response = await answer_to(error)

    assert ("Retry-After" in response.headers) == (response.status_code in {429, 503})
    assert int(response.headers.get("Retry-After", "1")) >= 1


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (12.2, "13"), (60.0, "60")]
)
async def test_retry_after_is_rounded_up(seconds: float, header: str) -> None:
    """A client that comes back a moment too early would be refused again."""
    response = await answer_to(errors.RateLimited("binance", seconds))

    assert response.headers["Retry-After"] == header


@pytest.mark.parametrize(
    ("error", "details"),
    [
        (errors.UnknownSymbol("binance", "BTC-USD", ["BTC-USDT"]), {"near": ["BTC-USDT"]}),
        (errors.UnsupportedInterval("coinbase", "1w", ["1m"]), {"supported": ["1m"]}),
        (errors.UnknownExchange("kraken", ["binance"]), {"known": ["binance"]}),
        (errors.UnknownMarketType("binance", "spot", ["perp"]), {"known": ["perp"]}),
        (errors.HistoryUnavailable("hyperliquid", BORN), {"earliest": to_ms(BORN)}),
        (
            errors.ClockSkew("binance", BORN, BORN + timedelta(hours=5)),
            {"their_time": to_ms(BORN), "our_time": to_ms(BORN) + 18_000_000},
        ),
        (errors.BadRows("binance", [BORN], "off the grid"), {"times": [to_ms(BORN)]}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_problem_tells_a_program_what_it_may_want(
    error: errors.MdpError, details: dict[str, object]
) -> None:
    """Beside the text; times in milliseconds."""
    assert details.items() <= body_of(await answer_to(error)).items()


async def test_unexpected_error_tells_nothing_but_the_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The cause is for the log."""
    response = await answer_to(ZeroDivisionError("the password is 1234"))

    assert response.status_code == 500
    assert body_of(response)["code"] == "internal_error"
    assert b"1234" not in response.body
    assert "the password is 1234" in caplog.text


async def test_unauthorized_names_the_way_in() -> None:
    """RFC 6750 wants the scheme."""
    response = await answer_to(Unauthorized("the token is too long"))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_forbidden_is_403() -> None:
    """The token is good, but not for this."""
    response = await answer_to(Forbidden("the token lacks the scope admin"))

    assert (response.status_code, body_of(response)["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (405, "method_not_allowed"), (418, "http_error")]
)
async def test_framework_errors_have_the_same_body(status: int, code: str) -> None:
    """A path that does not exist, a method that is not allowed."""
    response = await answer_to(HTTPException(status, headers={"Allow": "GET"}))

    assert (response.status_code, body_of(response)["code"]) == (status, code)
    assert response.headers["Allow"] == "GET"


async def test_every_wrong_parameter_is_named() -> None:
    """All at once, not one after the other."""
    problems = [
        {"loc": ("query", "limit"), "msg": "should be a number", "type": "int"},
        {"loc": ("query", "start"), "msg": "is missing", "type": "missing"},
    ]
    body = body_of(await answer_to(RequestValidationError(problems)))

    assert (body["status"], body["code"]) == (422, "invalid_parameter")
    assert [problem["parameter"] for problem in body["parameters"]] == ["limit", "start"]
    assert "limit: should be a number" in body["detail"]


def test_documented_problems_are_those_that_are_answered() -> None:
    """OpenAPI lists every code of a status, each once, and shows each."""
    described = problem_responses(422, 502)

    assert set(described) == {414, 422, 431, 500, 502}
    assert described[502]["description"] == "`upstream_bad_data`, `upstream_rejected`"
    for status, response in described.items():
        content = response["content"]["application/problem+json"]
        codes = sorted({kind.code for kind in every_kind() if kind.status == status})
        assert content["schema"]["properties"]["code"]["enum"] == codes
        assert sorted(content["examples"]) == codes
        for code, example in content["examples"].items():
            jsonschema.validate(example["value"], content["schema"])
            assert example["value"]["code"] == code


def test_route_may_name_the_errors_of_a_status_that_it_can_give() -> None:
    """An error stands for its code alone, with its body's additional members."""
    described = problem_responses(errors.UnknownExchange, errors.StoreUnavailable)

    assert set(described) == {404, 414, 431, 500, 503}
    content = described[404]["content"]["application/problem+json"]
    assert content["schema"]["properties"]["code"]["enum"] == ["unknown_exchange"]
    assert "known" in content["schema"]["properties"]
    assert not {"near", "supported"} & set(content["schema"]["properties"])
    assert described[503]["description"] == "`store_unavailable`"
    assert "Retry-After" in described[503]["headers"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/fails", 500, "internal_error"), ("/breaks", 200, "store_unavailable")],
)
async def test_line_of_what_no_route_could_answer_has_the_code_too(
    caplog: pytest.LogCaptureFixture, path: str, status: int, code: str
) -> None:
    """A mistake of ours, and an answer that was broken off after it had begun."""
    transport = httpx.ASGITransport(_failing_app(), raise_app_exceptions=False)
    with caplog.at_level(logging.INFO, "mdp.requests"):
        async with httpx.AsyncClient(transport=transport, base_url="http://mdp") as failing:
            await failing.get(path)
    (line,) = [vars(record) for record in caplog.records if record.getMessage() == "request"]

    assert (line["status"], line["code"]) == (status, code)


def _failing_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(RequestId)
    add_error_handlers(app)

    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        raise errors.SchemaMissing

    @app.get("/fails")
    async def fail() -> Response:
        raise ZeroDivisionError

    @app.get("/breaks")
    async def begin() -> Response:
        return StreamingResponse(half())

    return app
