"""Map errors to the one problem body (RFC 9457); the only table of statuses."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.requests.negotiation import NotAcceptable
from api.security_headers import security_headers
from api.tokens import Forbidden, Unauthorized
from mdp_core import errors
from mdp_core.domain.clock import to_ms
from mdp_core.logs import note

_log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """The status and the stable code under which a client knows an error."""

    status: int
    code: str


_STATUSES: dict[type[errors.MdpError], int] = {
    errors.InvalidParameter: 422,
    errors.InvalidWindow: 422,
    errors.NothingClosed: 422,
    errors.LimitTooLarge: 422,
    errors.WindowTooLarge: 422,
    errors.HistoryUnavailable: 422,
    errors.UnknownExchange: 404,
    errors.UnknownMarketType: 404,
    errors.UnknownSymbol: 404,
    errors.AmbiguousSymbol: 404,
    errors.UnsupportedInterval: 404,
    errors.NoCandle: 404,
    errors.NeverTraded: 404,
    errors.UnknownBackfill: 404,
    errors.ExchangeRejected: 502,
    errors.BadPayload: 502,
    errors.BadRows: 502,
    errors.ExchangeUnavailable: 503,
    errors.ClockSkew: 503,
    errors.RateLimited: 503,
    errors.NoSyncer: 503,
    errors.QuotaExceeded: 429,
    errors.Overloaded: 503,
    errors.StoreUnavailable: 503,
    errors.SchemaMissing: 503,
    errors.SeriesRepaired: 503,
}
KINDS: dict[type[Exception], ProblemKind] = {
    **{error: ProblemKind(status, error.code) for error, status in _STATUSES.items()},
    Unauthorized: ProblemKind(401, "unauthorized"),
    Forbidden: ProblemKind(403, "forbidden"),
    NotAcceptable: ProblemKind(406, "not_acceptable"),
}
BODY_TOO_LARGE = ProblemKind(413, "body_too_large")
TARGET_TOO_LONG = ProblemKind(414, "uri_too_long")
HEADERS_TOO_LARGE = ProblemKind(431, "headers_too_large")
INTERNAL = ProblemKind(500, "internal_error")
_STATUS_KINDS = {
    404: ProblemKind(404, "not_found"),
    405: ProblemKind(405, "method_not_allowed"),
    413: BODY_TOO_LARGE,
}


def every_kind() -> frozenset[ProblemKind]:
    """Return every kind that a client can meet."""
    of_requests = {TARGET_TOO_LONG, HEADERS_TOO_LARGE, INTERNAL, *_STATUS_KINDS.values()}
    return frozenset({*KINDS.values(), *of_requests})


def kind_of(error: Exception) -> ProblemKind:
    """Return the kind of the nearest class of an error that has one."""
    return next((KINDS[kind] for kind in type(error).__mro__ if kind in KINDS), INTERNAL)


def add_error_handlers(app: FastAPI) -> None:
    """Have every error answered with the problem body."""
    for kind in (errors.MdpError, Unauthorized, Forbidden, NotAcceptable, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)


async def _answer_error(request: Request, error: Exception) -> Response:
    kind = kind_of(error)
    if isinstance(error.__cause__, errors.MdpError) and isinstance(error, RuntimeError):
        # Starlette says by it that the answer had begun: it can only be broken off.
        _log.warning("an answer was broken off: %s", error.__cause__)
    elif kind is INTERNAL:
        _log.error("unexpected error, request %s", _request_id(request), exc_info=error)
        return problem(request, kind, "something went wrong here: the request id finds it")
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="mdp"'
    seconds = getattr(error, "retry_after_seconds", None)
    if seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return problem(request, kind, str(error), headers, details_of(error))


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it only
    problems = [
        {"parameter": _parameter(entry), "problem": entry["msg"]} for entry in error.errors()
    ]
    detail = "; ".join(f"{entry['parameter']}: {entry['problem']}" for entry in problems)
    return problem(request, KINDS[errors.InvalidParameter], detail, extra={"parameters": problems})


def _parameter(problem: Mapping[str, Any]) -> str:
    """Name what is wrong; where the body is no JSON the location ends in a position."""
    if problem["type"] == "json_invalid":
        return f"body, at character {problem['loc'][-1]}"
    return str(problem["loc"][-1])


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it only
    kind = _STATUS_KINDS.get(error.status_code, ProblemKind(error.status_code, "http_error"))
    return problem(request, kind, str(error.detail), dict(error.headers or {}))


def details_of(error: Exception) -> dict[str, Any]:
    """Give what a program may want to know beyond the text; times in ms."""
    match error:
        case errors.UnknownSymbol(near=near):
            details = {"near": near}
        case errors.UnsupportedInterval(supported=supported):
            details = {"supported": supported}
        case errors.HistoryUnavailable(earliest=earliest):
            details = {"earliest": to_ms(earliest)}
        case errors.ClockSkew(their_time=theirs, our_time=ours):
            details = {"their_time": to_ms(theirs), "our_time": to_ms(ours)}
        case errors.BadRows(times=times):
            details = {"times": [to_ms(time) for time in times]}
        case errors.UnknownExchange(known=known) | errors.UnknownMarketType(known=known):
            details = {"known": known}
        case _:
            details = {}
    return details


def problem(
    request: Request,
    kind: ProblemKind,
    detail: str,
    headers: dict[str, str] | None = None,
    extra: dict[str, Any] | None = None,
) -> Response:
    """Make the problem body: `code` for programs and `detail` for people.

    The request's log line has the code too.
    """
    note(code=kind.code)
    request_id = _request_id(request)
    body = problem_body(kind, detail, request_id) | (extra or {})
    # What fails unexpectedly is answered outside all middleware.
    marks = security_headers(request.url.path, kind.status)
    headers = {**marks, **(headers or {}), "X-Request-Id": request_id}
    return Response(orjson.dumps(body), kind.status, headers, media_type=PROBLEM_TYPE)


def problem_body(kind: ProblemKind, detail: str, request_id: str) -> dict[str, Any]:
    """Give the members that every problem body has."""
    return {
        "type": "about:blank",
        "title": kind.code.replace("_", " "),
        "status": kind.status,
        "code": kind.code,
        "detail": detail,
        "request_id": request_id,
    }


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))
