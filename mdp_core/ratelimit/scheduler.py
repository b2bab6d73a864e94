"""Who may ask an exchange next: the most urgent first, as slots and tokens come free.

All that a process sends to an exchange passes here. A page takes a turn: one of the few slots, and
the tokens that its request will cost, before anybody is kept from that page. Whatever else is sent
(further attempts, metadata) takes tokens only.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

from mdp_core.errors import RateLimited, StoreUnavailable
from mdp_core.ratelimit.budget import Budget
from mdp_core.ratelimit.priority import Priority, Urgency


class Permit:
    """The slot of one page, and the tokens that were taken for it and are not spent yet."""

    def __init__(self, scheduler: "RequestScheduler", urgency: Urgency, tokens: float) -> None:
        self._scheduler = scheduler
        self.urgency = urgency
        self.tokens = tokens

    async def rest(self, seconds: float) -> None:
        """Wait, and leave the slot to others meanwhile."""
        self._scheduler.free_slot()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._scheduler.occupy_slot()


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

_turn: ContextVar[Permit | None] = ContextVar("turn", default=None)
_urgency: ContextVar[Urgency | None] = ContextVar("urgency", default=None)


@contextmanager
def at_urgency(urgency: Urgency) -> Generator[None]:
    """Have what is sent inside the context, outside of any page's turn, wait as urgently as this.

    That may rise: what waits already is then served sooner.
    """
    token = _urgency.set(urgency)
    try:
        yield
    finally:
        _urgency.reset(token)


@contextmanager
def at_priority(priority: Priority) -> Generator[None]:
    """Have what is sent inside the context, outside of any page's turn, wait with this priority."""
    with at_urgency(Urgency(priority)):
        yield


def urgency_now() -> Urgency:
    """Tell how urgent what runs here is; outside of all contexts somebody waits for it."""
    return _urgency.get() or Urgency(Priority.INTERACTIVE)


class RequestScheduler:
    """Lets one process' requests through to one exchange, `slots` pages at a time."""

    def __init__(self, exchange: str, budget: Budget, *, slots: int) -> None:
        self._exchange = exchange
        self._budget = budget
        self._free_slots = slots
        self._blocked_until = 0.0  # of the event loop's clock; the tokens of a turn know no block
        self._waiting: dict[_Waiter, None] = {}  # in the order in which they came
        self._changed = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def turn(
        self, weight: float, urgency: Urgency, *, until: float | None
    ) -> AsyncGenerator[Permit]:
        """Hold a slot and tokens for `weight`; on leaving, what was not spent is given back.

        Args:
            weight: What the request is going to cost.
            urgency: May rise while this waits.
            until: The event loop's time up to which to wait; None: for ever.

        Raises:
            RateLimited: The turn does not come before then.
        """
        await self._wait(weight, urgency, takes_slot=True, until=until)
        turn = Permit(self, urgency, weight)
        token = _turn.set(turn)
        try:
            yield turn
        finally:
            _turn.reset(token)
            self.free_slot()
            if turn.tokens:
                await self._return(turn.tokens)

    async def pay(self, weight: float, *, until: float | None) -> None:
        """Spend `weight`: tokens of the turn that this runs in, or else others.

        Raises:
            RateLimited: They can't be had before the event loop's time `until`.
        """
        turn = _turn.get()
        is_blocked = asyncio.get_running_loop().time() < self._blocked_until
        if turn and turn.tokens >= weight and not is_blocked:
            turn.tokens -= weight
            return
        urgency = turn.urgency if turn else urgency_now()
        await self._wait(weight, urgency, takes_slot=False, until=until)

    async def settle(self, weight: float) -> None:
        """Give back what a request turned out not to cost (or, if negative, take what is owed)."""
        if weight:
            await self._budget.settle(weight)

    async def block(self, seconds: float, why: str) -> None:
        """Have everybody behind this egress wait: the exchange said so."""
        until = asyncio.get_running_loop().time() + seconds
        self._blocked_until = max(self._blocked_until, until)
        await self._budget.block(seconds, why)

    def heed(self, headers: Mapping[str, str], sent_at: float) -> None:
        """Believe what an answer says of the limit; `sent_at` in seconds since the epoch."""
        self._budget.observe_limit(headers, sent_at)

    def free_slot(self) -> None:
        """Let another page have its turn; that is news only where none was free."""
        self._free_slots += 1
        if self._free_slots == 1:
            self._changed.set()

    def occupy_slot(self) -> None:
        """Go on with a turn, whether or not a slot is free: it has tokens and claims already."""
        self._free_slots -= 1

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
        self._changed.set()
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        try:
            with urgency.watched(self._changed.set):
                async with asyncio.timeout_at(until):
                    await admitted
        except BaseException as error:
            self._waiting.pop(waiter, None)
            self._changed.set()
            if _was_admitted(waiter):
                await self._give_back(waiter)
            if isinstance(error, TimeoutError):
                raise RateLimited(self._exchange, _RETRY_SECONDS) from error
            raise

    async def _give_back(self, waiter: _Waiter) -> None:
        if waiter.takes_slot:
            self.free_slot()
        await self._return(waiter.weight)

    async def _return(self, tokens: float) -> None:
        """Give tokens back if the database lets us: the bucket fills again by itself."""
        with suppress(StoreUnavailable):
            await self._budget.settle(tokens)

    async def _serve(self) -> None:
        """Admit whoever waits, one priority at a time, until nobody does."""
        while self._waiting:
            self._changed.clear()
            wait_seconds = await self._admit(batch) if (batch := self._next()) else None
            if wait_seconds != 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_seconds):
                        await self._changed.wait()

    def _next(self) -> list[_Waiter]:
        """Choose the most urgent of those who could go now, in the order in which they came."""
        ready = [each for each in self._waiting if not each.takes_slot or self._free_slots > 0]
        first = min((each.urgency.priority for each in ready), default=None)
        slots = max(self._free_slots, 0)
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
            self._free_slots -= waiter.takes_slot
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
            waiter.admitted.set_exception(error)


def _was_admitted(waiter: _Waiter) -> bool:
    """Tell whether a waiter that was cancelled or timed out had got what it waited for."""
    admitted = waiter.admitted
    return admitted.done() and not admitted.cancelled() and admitted.exception() is None
