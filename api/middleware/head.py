"""Answers HEAD with the headers of GET (RFC 9110, section 9.3.2)."""

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Answered(Exception):
    """All that was asked for is sent."""


class HeadRequests:
    """Has HEAD answered as GET is, up to where a body begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body"})
            raise _Answered

        with suppress(_Answered):
            await self._app({**scope, "method": "GET"}, receive, send_head)
