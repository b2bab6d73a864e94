"""The answer to a question that many ask at once: found once, told to all."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class SharedAnswer(Generic[_Result]):
    """An answer that is kept for a moment, and waited for no longer than a patience.

    A question that gets no answer in time goes on: it is not cancelled, since cancelling a
    statement of a frozen server takes as long as the statement, and the next caller waits for it.

    Args:
        ask: Finds the answer.
        late: The answer told while there is none.
        kept_seconds: How long an answer is told without asking again.
        patience_seconds: How long a caller waits at the most.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[_Result]],
        late: Callable[[], _Result],
        *,
        kept_seconds: float,
        patience_seconds: float,
    ) -> None:
        self._ask = ask
        self._late = late
        self._kept_seconds = kept_seconds
        self._patience_seconds = patience_seconds
        self._asking: asyncio.Task[_Result] | None = None
        self._round: asyncio.Task[_Result] | None = None
        self._told_until = 0.0

    async def get(self) -> _Result:
        """Return the answer; all callers of a moment get the same.

        Raises:
            Exception: As the question.
        """
        if self._round is None or (self._round.done() and time.monotonic() >= self._told_until):
            self._round = asyncio.create_task(self._answered(), context=contextvars.Context())
        return await asyncio.shield(self._round)

    async def aclose(self) -> None:
        """End the question that is still open."""
        tasks = [task for task in (self._round, self._asking) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answered(self) -> _Result:
        if self._asking is None:
            self._asking = asyncio.create_task(self._asked())
        try:
            done, _ = await asyncio.wait({self._asking}, timeout=self._patience_seconds)
            if not done:
                return self._late()
            asked, self._asking = self._asking, None
            return asked.result()
        finally:
            self._told_until = time.monotonic() + self._kept_seconds

    async def _asked(self) -> _Result:
        return await self._ask()
