"""One request, tried again while that helps, to the head or JSON of its answer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, cast

from mdp_client.core.actions import Flow, Head, Receive, Send, Wait
from mdp_client.core.patience import Patience
from mdp_client.core.problems import error_of
from mdp_client.errors import BadBody, BrokenBody, JobStarted, MdpError
from mdp_client.records import JobStatus

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"
_ROOM_BYTES = 1 << 16
_MOST_PROBLEM_BYTES = 1 << 20
_FIRST_FAILURE = 300


@dataclass(frozen=True, slots=True)
class Call:
    """All that the flows of one call share.

    Attributes:
        prefix: The path of the service's URL, without a slash at its end.
        coding: The content coding to ask for, e.g. `identity`.
        patience: Of this call alone.
        started: Builds the error for a job that the caller does not wait for.
    """

    prefix: str
    coding: str
    patience: Patience
    started: Callable[[JobStatus], JobStarted]

    def target(self, path: str) -> str:
        """Return the target of a path as the service names it."""
        return path if self.prefix and path.startswith(f"{self.prefix}/") else self.prefix + path


@dataclass(frozen=True, slots=True)
class Question:
    """A request before it is sent."""

    method: str
    path: str
    accept: str = JSON_TYPE
    coding: str = "identity"
    body: bytes | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that tell which form of an answer is wanted."""
        typed = {"Content-Type": JSON_TYPE} if self.body is not None else {}
        return {"Accept": self.accept, "Accept-Encoding": self.coding, **typed}


def ask(call: Call, question: Question) -> Flow[Head]:
    """Send a request until its answer is no failure; the body is still to be received.

    Raises:
        MdpError: The answer is a failure that another try would not change, or the call's
            patience is at its end.
    """
    while True:
        try:
            return (yield from _ask_once(call, question))
        except MdpError as error:
            yield Wait(call.patience.pause_after(error))


def ask_json(call: Call, question: Question) -> Flow[dict[str, Any]]:
    """Send a request until its whole body was read as a JSON object.

    Raises:
        MdpError: As `ask`; `BadBody` where the body is of another type.
    """
    while True:
        try:
            head = yield from _ask_once(call, question)
            check_type(head, JSON_TYPE)
            value = as_object(parsed((yield from read_body())))
        except MdpError as error:
            yield Wait(call.patience.pause_after(error))
        else:
            call.patience.succeed()
            return value


def read_body(most: int | None = None) -> Flow[bytes]:
    """Receive a body to its end, or its first bytes."""
    room = memoryview(bytearray(_ROOM_BYTES))
    body = bytearray()
    while most is None or len(body) < most:
        count: int = yield Receive(room)
        if not count:
            break
        body += room[:count]
    return bytes(body)


def check_type(head: Head, wanted: str) -> None:
    """Check that a body is of the type that was asked for.

    Raises:
        BadBody: It is not; something else than the service may have answered.
    """
    given = media_type(head)
    if given != wanted:
        detail = f"the answer is {given or 'of no type'} and not {wanted}: is this the service?"
        raise BadBody(status=head.status, detail=detail, request_id=request_id(head))


def media_type(head: Head) -> str:
    """Return the type of a body, without parameters."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def request_id(head: Head) -> str | None:
    """Return the id under which the service logged the request."""
    return head.headers.get("x-request-id")


def retry_after(head: Head) -> float | None:
    """Return the seconds of `Retry-After`; dates count by the service's own clock."""
    text = head.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        later, now = map(parsedate_to_datetime, (text, head.headers.get("date", "")))
        return max(0.0, (later - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _ask_once(call: Call, question: Question) -> Flow[Head]:
    head: Head = yield Send(
        question.method,
        call.target(question.path),
        call.patience.silence_seconds,
        question.headers(),
        question.body,
    )
    if head.status < _FIRST_FAILURE:
        return head
    problem = yield from _problem(head)
    raise error_of(head.status, problem, request_id(head), retry_after(head))


def _problem(head: Head) -> Flow[Mapping[str, Any]]:
    """Read the problem body; a gateway's page, or one that breaks, tells nothing."""
    if media_type(head) not in (PROBLEM_TYPE, JSON_TYPE):
        return {"detail": _foreign(head)}
    try:
        return as_object(parsed((yield from read_body(_MOST_PROBLEM_BYTES))))
    except MdpError:
        return {}


def _foreign(head: Head) -> str:
    to = f" to {head.headers['location']}" if "location" in head.headers else ""
    kind = media_type(head) or "no body"
    return f"HTTP {head.status}{to} with {kind}, which is no answer of the service's own"


def as_object(value: object) -> dict[str, Any]:
    """Return a JSON value that must be an object.

    Raises:
        BadBody: It is none.
    """
    if not isinstance(value, dict):
        raise BadBody(detail="the answer is no JSON object")
    return cast("dict[str, Any]", value)


def parsed(body: bytes) -> object:
    """Return the value of a JSON body.

    Raises:
        BrokenBody: It is none.
    """
    try:
        return json.loads(body)
    except ValueError as error:
        raise BrokenBody(detail=f"the body of {len(body)} bytes is no whole JSON") from error
