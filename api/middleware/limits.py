"""Refuse large or ambiguous requests; give answers their security headers."""

from urllib.parse import unquote

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import (
    BODY_TOO_LARGE,
    HEADERS_TOO_LARGE,
    KINDS,
    TARGET_TOO_LONG,
    ProblemKind,
    problem,
)
from api.security_headers import security_headers
from mdp_core.errors import InvalidParameter

_MOST_TARGET_BYTES = 8 * 1024
_MOST_HEADER_BYTES = 16 * 1024
_MOST_BODY_BYTES = 256 * 1024


class Guard:
    """Bounds the target, the headers and the body of a request; marks its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in security_headers(scope["path"], message["status"]).items():
                    headers.setdefault(name, value)
            await send(message)

        if refusal := _refusal(scope):
            await problem(Request(scope), *refusal)(scope, receive, send_marked)
            return
        await self._app(scope, _bounded(receive), send_marked)


def _refusal(scope: Scope) -> tuple[ProblemKind, str] | None:
    target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if target > _MOST_TARGET_BYTES:
        return TARGET_TOO_LONG, f"path and query may have {_MOST_TARGET_BYTES} bytes"
    if repeated := _repeated(scope["query_string"]):
        return KINDS[InvalidParameter], f"{repeated} is given more than once: give it once"
    # A token that is too long is refused as a token.
    others = ((name, value) for name, value in scope["headers"] if name != b"authorization")
    if sum(len(name) + len(value) for name, value in others) > _MOST_HEADER_BYTES:
        return HEADERS_TOO_LARGE, f"all headers together may have {_MOST_HEADER_BYTES} bytes"
    announced = Headers(scope=scope).get("Content-Length", "0")
    # The server itself refuses a length that is no number.
    if announced.isdecimal() and int(announced[:20]) > _MOST_BODY_BYTES:
        return BODY_TOO_LARGE, f"a body may have {_MOST_BODY_BYTES} bytes"
    return None


def _repeated(query: bytes) -> str | None:
    """Return the first parameter that is given twice, if any."""
    names = [part.partition(b"=")[0] for part in query.split(b"&") if part]
    if b"%" in query:
        names = [unquote(name).encode() for name in names]
    if len(set(names)) == len(names):
        return None
    repeated = next(name for at, name in enumerate(names) if name in names[:at])
    return repeated.decode(errors="replace")


def _bounded(receive: Receive) -> Receive:
    """Stop a body whose length was not announced where it becomes too long."""
    received = 0

    async def receive_bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > _MOST_BODY_BYTES:
            raise HTTPException(413, f"a body may have {_MOST_BODY_BYTES} bytes")
        return message

    return receive_bounded
