"""Problem bodies of the service, as errors."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from mdp_client.errors import (
    BodyTooLarge,
    Forbidden,
    HeadersTooLarge,
    HttpError,
    InternalError,
    InvalidParameter,
    MdpError,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
    UpstreamError,
    UriTooLong,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

OF_STATUS: Mapping[int, type[MdpError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    406: NotAcceptable,
    413: BodyTooLarge,
    414: UriTooLong,
    422: InvalidParameter,
    429: TooManyRequests,
    431: HeadersTooLarge,
    500: InternalError,
    502: UpstreamError,
    503: ServiceUnavailable,
}
"""The classes of codes that are not known."""


def _below(kind: type[MdpError]) -> Iterator[type[MdpError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _below(subclass)


OF_CODE: Mapping[str, type[MdpError]] = {entry.default_code: entry for entry in _below(MdpError)}
"""Every class by its code."""


def error_of(
    status: int, problem: Mapping[str, Any], request_id: str | None, retry_after: float | None
) -> MdpError:
    """Build the error of a problem body.

    Args:
        status: The HTTP status.
        problem: The body's members; empty where it is no problem body.
        request_id: As the header tells it.
        retry_after: Seconds, as the header tells them.
    """
    code = problem.get("code")
    kind = OF_CODE.get(str(code)) or OF_STATUS.get(status, HttpError)
    detail = str(problem.get("detail") or f"the service answered HTTP {status}")
    error = kind(str(code) if code else None, status, detail, problem.get("request_id", request_id))
    error.retry_after = retry_after
    for name in ("near", "supported", "known"):
        if names := _items(problem, name):
            setattr(error, name, tuple(map(str, names)))
    if isinstance(earliest := problem.get("earliest"), int):
        error.earliest = _time(earliest)
    error.times = tuple(_time(item) for item in _items(problem, "times") if isinstance(item, int))
    return error


def _items(problem: Mapping[str, Any], name: str) -> list[Any]:
    items = problem.get(name)
    return cast("list[Any]", items) if isinstance(items, list) else []


def _time(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
