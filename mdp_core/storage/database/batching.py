"""Batch concurrent calls: calls during a round trip share the next one."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from mdp_core.errors import copied

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchingQueue(Generic[Item, Result]):
    """Does things for many callers: one batch at a time, of all since the last one.

    Nothing is delayed to make batches larger: a lone caller is served alone.

    Args:
        do: Does a batch (never an empty one) and gives a result for each item, in their order, or
            an error for its caller; an exception of it is raised to all callers of the batch.
    """

    def __init__(
        self, do: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]]
    ) -> None:
        self._do = do
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._working: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Have `item` done; one cancelled before its batch begins is not done at all."""
        answered = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answered))
        if self._working is None or self._working.done():
            # The log fields of one caller's request are not those of the others.
            empty = contextvars.Context()
            self._working = asyncio.create_task(self._work(), context=empty)
        return answered

    async def aclose(self) -> None:
        """Wait for what was asked for."""
        while self._working and not self._working.done():
            await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            batch = [(item, future) for item, future in self._waiting if not future.done()]
            self._waiting = []
            if batch:
                await self._answer([item for item, _ in batch], [future for _, future in batch])

    async def _answer(self, items: list[Item], futures: list[asyncio.Future[Result]]) -> None:
        try:
            results = await self._do(items)
        except Exception as error:  # noqa: BLE001 - the callers raise it
            for future in (waiting for waiting in futures if not waiting.done()):
                future.set_exception(copied(error))
            return
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
