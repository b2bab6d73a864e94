"""One face for both clients, so that one suite holds for them."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any

from mdp_client import AsyncClient, Client


class Both:
    """A client of either kind; calls return what is awaited, streams return a list.

    Args:
        kind: `sync` or `async`.
    """

    def __init__(self, kind: str, url: str, options: Mapping[str, Any]) -> None:
        self.kind = kind
        self._runner = asyncio.Runner()
        make = Client if kind == "sync" else AsyncClient
        self.client: Any = make(url, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def call(*names: object, **options: object) -> Any:
            return self.resolved(method(*names, **options))

        return call

    def resolved(self, value: Any) -> Any:
        """Await what is to be awaited, and collect what is yielded."""
        if inspect.isawaitable(value):
            return self._runner.run(_awaited(value))
        if isinstance(value, AsyncGenerator):
            return self._runner.run(_collected(value))
        if isinstance(value, Generator):
            return [*value]
        return value

    def close(self) -> None:
        """Close the client and its event loop."""
        self.resolved(self.client.close())
        self._runner.close()


async def _awaited(value: Any) -> Any:
    return await value


async def _collected(value: AsyncGenerator[Any]) -> list[Any]:
    return [element async for element in value]
