"""What is asked for while a round trip is under way shares the next one."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from mdp_core.errors import copied

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchingQueue(Generic[Item, Result]):
    """Does things for many at once: one batch at a time, with all that came during the last one.

    Nothing is delayed to make batches larger: whoever comes alone is served alone.

    Args:
        do: Does a batch (never an empty one) and gives a result for each item, in their order, or
            an error for who asked for it; what it raises is raised to everybody in the batch.
    """

    def __init__(
        self, do: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]]
    ) -> None:
        self._do = do
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._working: asyncio.Task[None] | None = None

    def ask(self, item: Item) -> asyncio.Future[Result]:
        """Have `item` done; one that is cancelled before its batch begins is not done at all."""
        answered = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answered))
        if self._working is None or self._working.done():
            # Whose request, turn or count it is matters to none of the others.
            nobodys = contextvars.Context()
            self._working = asyncio.create_task(self._work(), context=nobodys)
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
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            for future in (each for each in futures if not each.done()):
                future.set_exception(copied(error))
            return
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
