"""Whose requests go first where an exchange takes only so many."""

from enum import IntEnum


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

    def raise_to(self, priority: Priority) -> None:
        """Make it at least as urgent as `priority`."""
        self.priority = min(self.priority, priority)
