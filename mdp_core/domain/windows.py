"""Windows of time, half-open, and the set algebra over them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open span `[start, end)` of open times; aware, UTC; may be empty."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Raise ValueError for naive times and for a start after the end."""
        if self.start.tzinfo is not UTC or self.end.tzinfo is not UTC:
            message = f"a window needs UTC times, got {self.start!r} and {self.end!r}"
            raise ValueError(message)
        if self.start > self.end:
            message = f"a window can't start ({self.start}) after its end ({self.end})"
            raise ValueError(message)

    def __str__(self) -> str:
        """Return both bounds as an ISO-8601 interval."""
        return f"{self.start.isoformat()}/{self.end.isoformat()}".replace("+00:00", "Z")

    @property
    def is_empty(self) -> bool:
        """True if no time lies inside."""
        return self.start == self.end

    def clip(self, start: datetime, end: datetime) -> Self:
        """Return the part inside `[start, end)`; where none is left, an empty window."""
        clipped = min(max(self.start, start), self.end)
        return type(self)(clipped, max(min(self.end, end), clipped))


def hull(windows: list[Window]) -> Window:
    """Return the smallest window around ascending, non-empty `windows` (at least one)."""
    return Window(windows[0].start, windows[-1].end)


def subtract(windows: Iterable[Window], holes: Iterable[Window]) -> list[Window]:
    """Return ascending, disjoint `windows` without `holes`; empty ones are dropped."""
    left = list(windows)
    for hole in holes:
        parts = (part for window in left for part in _around(window, hole))
        left = [part for part in parts if not part.is_empty]
    return left


def intersect(windows: Iterable[Window], other: Window) -> list[Window]:
    """Return the parts of `windows` inside `other`; empty ones are dropped."""
    clipped = (window.clip(other.start, other.end) for window in windows)
    return [window for window in clipped if not window.is_empty]


def _around(window: Window, hole: Window) -> tuple[Window, Window]:
    return window.clip(window.start, hole.start), window.clip(hole.end, window.end)
