"""The context of a request, handed down from the service to the wire."""

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

from mdp_core.ratelimit.priority import Priority, Urgency

# The part of its time that a caller waits for tokens.
_PATIENT_PART = 0.9


@dataclass(slots=True)
class UpstreamCount:
    """The number of HTTP requests that were sent to exchanges on behalf of one caller."""

    requests: int = 0
    was_interrupted: bool = False
    """Whether the caller was waiting for an exchange when its time was up."""

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Note whether the caller's time ends inside the context."""
        try:
            yield
        except asyncio.CancelledError:
            self.was_interrupted = True
            raise


class Slots:
    """The places of one process for pages that are being asked for at one exchange."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.changed = asyncio.Event()

    def release(self) -> None:
        """Give a place back; that is news only where none was free."""
        self.free += 1
        if self.free == 1:
            self.changed.set()

    def occupy(self) -> None:
        """Take a place, free or not: the page task has its tokens and claims already."""
        self.free -= 1


class Permit:
    """The slot of one page, and its tokens that are not spent yet."""

    def __init__(self, slots: Slots, tokens: float) -> None:
        self._slots = slots
        self.tokens = tokens

    def spend(self, weight: float) -> bool:
        """Spend tokens of this permit; return whether there were enough."""
        if self.tokens < weight:
            return False
        self.tokens -= weight
        return True

    async def release_while_waiting(self, seconds: float) -> None:
        """Wait, and leave the slot to other pages meanwhile."""
        self._slots.release()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._slots.occupy()


@dataclass(slots=True)
class Caller:
    """The client that waits for an answer: its token's subject, and if it has a place."""

    subject: str = ""
    is_waiting: bool = False


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The urgency, deadline, permit and count with which an exchange is asked.

    `deadline` is the event loop's time up to which the caller waits for its answer, `until` the
    time up to which it waits for tokens; None: for ever. Without a permit every request waits for
    tokens of its own.
    """

    urgency: Urgency = field(default_factory=lambda: Urgency(Priority.INTERACTIVE))
    upstream: UpstreamCount = field(default_factory=UpstreamCount)
    until: float | None = None
    deadline: float | None = None
    permit: Permit | None = None
    begun: float = field(default_factory=time.perf_counter)
    caller: Caller | None = None
    """The client, if one waits: only so many may."""

    @classmethod
    def at(cls, priority: Priority) -> Self:
        """Build the context of a caller with this priority and no deadline."""
        return cls(Urgency(priority))

    @classmethod
    def within(cls, seconds: float, subject: str = "") -> Self:
        """Build the context of an interactive subject that waits so long.

        Its wait for tokens ends a little sooner, so that a used-up limit is told as such.
        """
        now = asyncio.get_running_loop().time()
        until, deadline = now + seconds * _PATIENT_PART, now + seconds
        return cls(until=until, deadline=deadline, caller=Caller(subject))

    @property
    def priority(self) -> Priority:
        """The present priority; it rises where a more urgent caller waits for the same."""
        return self.urgency.priority

    async def release_while_waiting(self, seconds: float) -> None:
        """Wait, and leave the permit's slot, if there is one, to other pages meanwhile."""
        if self.permit:
            await self.permit.release_while_waiting(seconds)
        else:
            await asyncio.sleep(seconds)

    def holding(self, permit: Permit) -> Self:
        """Return this context with a permit, whose tokens are spent first."""
        return replace(self, permit=permit)


# The context of a caller that waits for the answer, has no deadline, and counts nothing.
DEFAULT_CONTEXT = RequestContext()
