"""The transfer of a file from the archive: whole, in drops, or cut off."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from scripts.sandbox.control import Fault

_DROP_SECONDS = 0.5
_MEDIA_TYPE = "application/zip"


def transfer(body: bytes, fault: Fault | None) -> Response:
    """Send the bytes, as a fault of the transfer lets them pass."""
    match fault.fault if fault else None:
        case "drip":
            seconds = fault.seconds if fault and fault.seconds is not None else _DROP_SECONDS
            headers = {"Content-Length": str(len(body))}
            return StreamingResponse(_drops(body, seconds), headers=headers, media_type=_MEDIA_TYPE)
        case "cut_off":
            return _CutOff(body, media_type=_MEDIA_TYPE)
        case _:
            return Response(body, media_type=_MEDIA_TYPE)


async def _drops(body: bytes, seconds: float) -> AsyncGenerator[bytes]:
    for place in range(len(body)):
        yield body[place : place + 1]
        await asyncio.sleep(seconds)


class _CutOff(Response):
    """Half of the body, and then the end of the connection."""

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        body = bytes(self.body)
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        half = body[: len(body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
