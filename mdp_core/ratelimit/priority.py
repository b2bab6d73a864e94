"""Whose requests go first where an exchange takes only so many."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import IntEnum
from weakref import WeakSet


class Priority(IntEnum):
    """How urgent a request is: the lower number goes first."""

    INTERACTIVE = 0
    """Somebody waits for the answer."""
    WARMING = 1
    """It will be asked for soon."""
    BACKFILL = 2
    """It only has to be done some time."""


class Urgency:
    """How urgent a piece of work is now: as urgent as whoever of its waiters is in most haste."""

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self._led = WeakSet[Urgency]()  # what has ended need not be told
        self._watchers: list[Callable[[], None]] = []

    def raise_to(self, priority: Priority) -> None:
        """Make it at least as urgent as `priority`, and with it what it waits for."""
        if priority >= self.priority:
            return
        self.priority = priority
        for notice in self._watchers:
            notice()
        for other in self._led:
            other.raise_to(priority)

    def lead(self, other: "Urgency") -> None:
        """Have `other`, which this waits for, be at least as urgent, now and when this rises."""
        other.raise_to(self.priority)
        self._led.add(other)

    @contextmanager
    def watched(self, notice: Callable[[], None]) -> Generator[None]:
        """Have `notice` called when this rises inside the context."""
        self._watchers.append(notice)
        try:
            yield
        finally:
            self._watchers.remove(notice)
