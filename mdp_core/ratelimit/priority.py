"""Priorities of requests where an exchange takes only so many."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import IntEnum
from weakref import WeakSet


class Priority(IntEnum):
    """The priority of a request; the lower number goes first."""

    INTERACTIVE = 0
    """A client waits for the answer."""
    WARMING = 1
    """It will be requested soon."""
    BACKFILL = 2
    """It only has to be done some time."""


class Urgency:
    """The priority of a piece of work now: the highest among its waiters."""

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self._led = WeakSet[Urgency]()  # ended work needs no notice
        self._watchers: list[Callable[[], None]] = []

    def raise_to(self, priority: Priority) -> None:
        """Raise it to `priority` at least, and with it the work it waits for."""
        if priority >= self.priority:
            return
        self.priority = priority
        for notice in self._watchers:
            notice()
        for other in self._led:
            other.raise_to(priority)

    def lead(self, other: "Urgency") -> None:
        """Keep `other`, which this waits for, at least as urgent as this."""
        other.raise_to(self.priority)
        self._led.add(other)

    @contextmanager
    def watched(self, notice: Callable[[], None]) -> Generator[None]:
        """Call `notice` when this rises inside the context."""
        self._watchers.append(notice)
        try:
            yield
        finally:
            self._watchers.remove(notice)
