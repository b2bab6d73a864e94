"""Schedule exchange requests by priority, as slots and tokens come free.

All that a process sends to an exchange passes here. A page takes a permit: one of the few slots,
and the tokens that its request will cost, before it is claimed. All other requests (further
attempts, symbol lists) take tokens only.
"""

import asyncio
import contextvars
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from mdp_core.errors import RateLimited, StoreUnavailable, copied
from mdp_core.ratelimit.budget import Budget
from mdp_core.ratelimit.context import Permit, RequestContext, Slots
from mdp_core.ratelimit.priority import Urgency


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who waits for tokens, and for a slot if it `takes_slot`."""

    weight: float
    urgency: Urgency
    takes_slot: bool
    until: float | None
    admitted: asyncio.Future[None]


# While several wait for tokens the first waits so much longer for others to go with it: pages that
# go together share their round trips to the database.
_TOGETHER_SECONDS = 0.25

# What is told to somebody whose time is up while there is no telling how long the others take.
_RETRY_SECONDS = 1.0


class RequestScheduler:
    """Lets one process' requests through to one exchange, `slots` pages at a time."""

    def __init__(self, exchange: str, budget: Budget, *, slots: int) -> None:
        self._exchange = exchange
        self._budget = budget
        self._slots = Slots(slots)
        self._blocked_until = 0.0  # of the event loop's clock; the tokens of a permit know no block
        self._waiting: dict[_Waiter, None] = {}  # in the order in which they came
        self._serving: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def permit(self, weight: float, context: RequestContext) -> AsyncGenerator[Permit]:
        """Hold a slot and tokens for `weight`; on leaving, unspent tokens are given back.

        Args:
            weight: What the request is going to cost.
            context: Its urgency may rise while this waits; it waits until the context's time.

        Raises:
            RateLimited: There is no permit before then.
        """
        await self._wait(weight, context.urgency, takes_slot=True, until=context.until)
        permit = Permit(self._slots, weight)
        try:
            yield permit
        finally:
            self._slots.release()
            if permit.tokens:
                await self._return(permit.tokens)

    async def pay(self, weight: float, context: RequestContext, *, until: float | None) -> None:
        """Spend `weight`: tokens of the context's permit, or else others.

        Raises:
            RateLimited: They can't be had before the event loop's time `until`.
        """
        is_blocked = asyncio.get_running_loop().time() < self._blocked_until
        if not is_blocked and context.permit and context.permit.spend(weight):
            return
        await self._wait(weight, context.urgency, takes_slot=False, until=until)

    async def settle(self, weight: float) -> None:
        """Give back what a request turned out not to cost (or, if negative, take what is owed)."""
        if weight:
            await self._budget.settle(weight)

    async def block(self, seconds: float, why: str) -> None:
        """Have everybody behind this egress wait: the exchange said so."""
        until = asyncio.get_running_loop().time() + seconds
        self._blocked_until = max(self._blocked_until, until)
        await self._budget.block(seconds, why)

    def observe_limit(self, headers: Mapping[str, str], sent_at: float) -> None:
        """Note what an answer says of the limit; `sent_at` in seconds since the epoch."""
        self._budget.observe_limit(headers, sent_at)

    async def aclose(self) -> None:
        """Let nobody through any more."""
        if self._serving:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

    async def _wait(
        self, weight: float, urgency: Urgency, *, takes_slot: bool, until: float | None
    ) -> None:
        admitted = asyncio.get_running_loop().create_future()
        waiter = _Waiter(weight, urgency, takes_slot, until, admitted)
        self._waiting[waiter] = None
        self._slots.changed.set()
        if self._serving is None or self._serving.done():
            # It serves many callers: the context of the first one is not its own.
            alone = contextvars.Context()
            self._serving = asyncio.create_task(self._serve(), context=alone)
        try:
            with urgency.watched(self._slots.changed.set):
                async with asyncio.timeout_at(until):
                    await admitted
        except BaseException as error:
            self._waiting.pop(waiter, None)
            self._slots.changed.set()
            if _was_admitted(waiter):
                await self._give_back(waiter)
            if isinstance(error, TimeoutError):
                raise RateLimited(self._exchange, _RETRY_SECONDS) from error
            raise

    async def _give_back(self, waiter: _Waiter) -> None:
        if waiter.takes_slot:
            self._slots.release()
        await self._return(waiter.weight)

    async def _return(self, tokens: float) -> None:
        """Give tokens back if the database lets us: the bucket fills again by itself."""
        with suppress(StoreUnavailable):
            await self._budget.settle(tokens)

    async def _serve(self) -> None:
        """Admit whoever waits, one priority at a time, until nobody does."""
        while self._waiting:
            self._slots.changed.clear()
            wait_seconds = await self._admit(batch) if (batch := self._next()) else None
            if wait_seconds != 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_seconds):
                        await self._slots.changed.wait()

    def _next(self) -> list[_Waiter]:
        """Choose the most urgent of those who could go now, in the order in which they came."""
        ready = [each for each in self._waiting if not each.takes_slot or self._slots.free > 0]
        first = min((each.urgency.priority for each in ready), default=None)
        slots = max(self._slots.free, 0)
        batch: list[_Waiter] = []
        for waiter in (each for each in ready if each.urgency.priority == first):
            if not waiter.takes_slot or slots > 0:
                slots -= waiter.takes_slot
                batch.append(waiter)
        return batch

    async def _admit(self, batch: list[_Waiter]) -> float:
        """Take tokens for as many of `batch` as there are; tell how long to wait for more."""
        weights = [waiter.weight for waiter in batch]
        try:
            taken = await self._budget.take(weights, batch[0].urgency.priority)
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            for waiter in batch:
                self._leave(waiter, error)
            return 0.0
        for waiter in batch[: taken.count]:
            self._slots.free -= waiter.takes_slot
            if waiter.admitted.done():  # it left while the tokens were taken
                await self._give_back(waiter)
            else:
                self._leave(waiter, None)
        if taken.count:
            return 0.0
        self._give_up(taken.wait_seconds)
        others = min(self._budget.refill_seconds(sum(weights[1:])), _TOGETHER_SECONDS)
        return (taken.wait_seconds + others) * random.uniform(1.0, 1.1)  # noqa: S311 - not a secret

    def _give_up(self, wait_seconds: float) -> None:
        """Tell those who can't wait as long as the first of all has to."""
        then = asyncio.get_running_loop().time() + wait_seconds
        for waiter in list(self._waiting):
            if waiter.until is not None and waiter.until < then:
                self._leave(waiter, RateLimited(self._exchange, wait_seconds))

    def _leave(self, waiter: _Waiter, error: Exception | None) -> None:
        self._waiting.pop(waiter, None)
        if waiter.admitted.done():
            return
        if error is None:
            waiter.admitted.set_result(None)
        else:
            waiter.admitted.set_exception(copied(error))


def _was_admitted(waiter: _Waiter) -> bool:
    """Tell whether a waiter that was cancelled or timed out had got what it waited for."""
    admitted = waiter.admitted
    return admitted.done() and not admitted.cancelled() and admitted.exception() is None
