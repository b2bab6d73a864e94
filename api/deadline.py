"""One deadline for everything that a request does, the database included."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from typing_extensions import override

from mdp_core.errors import StoreUnavailable
from mdp_core.wiring import Services

_LATE = "it did not answer in time"


class TimedRoute(APIRoute):
    """A route that reads the store; its answer is not awaited beyond the deadline."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler that ends at the deadline."""
        handle = super().get_route_handler()

        async def handle_in_time(request: Request) -> Response:
            services: Services = request.state.services
            return await _in_time(handle(request), services.settings.request_deadline_seconds)

        return handle_in_time


async def _in_time(answering: Awaitable[Response], seconds: float) -> Response:
    """Wait so long for an answer.

    What is given up goes on for a while: a server that stands still takes no cancellation.

    Raises:
        StoreUnavailable: There is none.
    """
    task = asyncio.ensure_future(answering)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise StoreUnavailable(_LATE)
    return task.result()
