"""Pass calls on to the exchanges; identical ones under way are shared."""

import asyncio
from collections.abc import Mapping

from cachetools import TLRUCache

from mdp_core.errors import ExchangeUnavailable, Overloaded
from mdp_core.exchanges.base import ExchangeAdapter
from mdp_core.exchanges.relay import Question, Relayed
from mdp_core.ratelimit.context import RequestContext
from mdp_core.ratelimit.priority import Priority, Urgency

_MOST_UNDER_WAY = 200
_KEPT_BYTES = 32 << 20
_OK = 200

_Key = tuple[str, Question]
# An answer, and for how long it is told again.
_Kept = tuple[Relayed, float]


def _expires(_key: _Key, kept: _Kept, now: float) -> float:
    return now + kept[1]


def _size(kept: _Kept) -> int:
    return len(kept[0].body)


class Passing:
    """Calls that go on to the exchanges, below everything a client of ours waits for.

    Args:
        seconds: How long an exchange may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._under_way: dict[_Key, asyncio.Task[Relayed]] = {}
        loop = asyncio.get_running_loop()
        self._kept = TLRUCache[_Key, _Kept](_KEPT_BYTES, _expires, loop.time, _size)

    async def ask(
        self, adapter: ExchangeAdapter, question: Question, *, kept_seconds: float
    ) -> Relayed:
        """Return an exchange's answer, whatever it is.

        Args:
            adapter: Of the exchange.
            question: What to ask.
            kept_seconds: How long the answer may be told again.

        Raises:
            ExchangeUnavailable, RateLimited, BadPayload: There is none.
            Overloaded: Too many others are being asked.
        """
        key = (adapter.facts.name, question)
        if kept := self._kept.get(key):
            return kept[0]
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= _MOST_UNDER_WAY:
                raise Overloaded
            task = asyncio.create_task(self._ask(adapter, question))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._forget(key, done, kept_seconds))
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """End what is under way."""
        tasks = [*self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, adapter: ExchangeAdapter, question: Question) -> Relayed:
        deadline = asyncio.get_running_loop().time() + self._seconds
        context = RequestContext(Urgency(Priority.WARMING), until=deadline, deadline=deadline)
        try:
            async with asyncio.timeout_at(deadline):
                return await adapter.bound(context).relay(question)
        except TimeoutError as error:
            raise ExchangeUnavailable(adapter.facts.name, "did not answer in time") from error

    def _forget(self, key: _Key, done: asyncio.Task[Relayed], kept_seconds: float) -> None:
        del self._under_way[key]
        if done.cancelled() or done.exception():
            return
        answer = done.result()
        if kept_seconds and answer.status == _OK and len(answer.body) < _KEPT_BYTES:
            self._kept[key] = (answer, kept_seconds)


def headers_of(answer: Relayed) -> Mapping[str, str]:
    """Return the headers of an answer that is handed back."""
    return {"Content-Type": "application/octet-stream", **answer.headers}
