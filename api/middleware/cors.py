"""Let browsers on the origins that are named in `MDP_CORS_ORIGINS` read answers."""

from collections.abc import Sequence
from functools import cached_property

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "HEAD", "POST", "DELETE")
_ASKED = ("Authorization", "Content-Type", "If-None-Match", "X-Request-Id")
# Beside the few that a browser always shows.
_TOLD = (
    *("ETag", "Link", "Location", "Retry-After", "Server-Timing"),
    *("X-Cache", "X-Complete", "X-Request-Id", "X-Settled-Until", "X-Unconfirmed"),
    *("X-Upstream-Requests", "X-Version", "X-Window-End", "X-Window-Start"),
)
_PREFLIGHT_SECONDS = 3600


class CrossOrigin:
    """Middleware that answers preflights and marks answers; idle without origins.

    Tokens are sent in a header and never by the browser itself: no credentials are allowed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._origins: Sequence[str] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or "Origin" not in Headers(scope=scope):
            await self._app(scope, receive, send)
            return
        # Known only to requests: the application is made before its settings are read.
        self._origins = scope["state"]["services"].settings.cors_origins
        await (self._marking if self._origins else self._app)(scope, receive, send)

    @cached_property
    def _marking(self) -> ASGIApp:
        return CORSMiddleware(
            self._app,
            allow_origins=self._origins,
            allow_methods=_METHODS,
            allow_headers=_ASKED,
            expose_headers=_TOLD,
            max_age=_PREFLIGHT_SECONDS,
        )
