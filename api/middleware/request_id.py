"""Give every request an id, in its answer and its log lines, and one log line."""

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import INTERNAL, kind_of
from mdp_core.errors import MdpError
from mdp_core.logs import log_fields

_log = logging.getLogger("mdp.requests")

_HEADER = "X-Request-Id"
_HEALTH = frozenset({"/health", "/health/live"})
# The part behind a door for URLs, and whatever begins as a token does.
_TOKEN = re.compile(r"(?<=/dialect/)[^/]+|(?<=/udf/)[^/]+|eyJ[^/]*")
_ACCEPTABLE = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class RequestId:
    """Middleware that takes the caller's `X-Request-Id`, if harmless, or makes one.

    When the answer has been sent, or can't be, one line says what was asked and what came of it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "")
        request_id = given if _ACCEPTABLE.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        with log_fields(request_id=request_id) as fields:
            await self._answer(scope, receive, send, fields)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, fields: dict[str, Any]
    ) -> None:
        begun = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_HEADER] = fields["request_id"]
                fields["status"] = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            # The answer to it, if none has begun, is made outside of all middleware.
            cause = error.__cause__ if isinstance(error.__cause__, MdpError) else error
            fields.setdefault("status", INTERNAL.status)
            fields["code"] = kind_of(cause).code
            raise
        finally:
            # The query may hold what its sender did not mean to have written down.
            described = {"method": scope["method"], "path": without_token(scope["path"]), **fields}
            described["ms"] = round((time.perf_counter() - begun) * 1000, 1)
            _log.log(_level(scope["path"]), "request", extra=described)


def without_token(path: str) -> str:
    """Return a path without the token that may stand in it, wherever it stands."""
    return _TOKEN.sub("…", path)


def _level(path: str) -> int:
    """Return DEBUG for the health checks of load balancers, INFO otherwise."""
    return logging.DEBUG if path in _HEALTH else logging.INFO
