"""Windows of time, half-open, and the set algebra over them. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
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
    """Return ascending, disjoint `windows` without `holes`; empty ones are dropped.

    The holes may be in any order; it takes a time in proportion to both, and longer to sort them.
    """
    left: list[Window] = []
    ordered = _merged(holes)
    first = 0
    for window in windows:
        while first < len(ordered) and ordered[first].end <= window.start:
            first += 1
        start = window.start
        for hole in islice(ordered, first, None):
            if hole.start >= window.end:
                break
            if hole.start > start:
                left.append(Window(start, hole.start))
            start = hole.end
        if start < window.end:
            left.append(Window(start, window.end))
    return left


def common(windows: Sequence[Window], others: Iterable[Window]) -> list[Window]:
    """Return the parts of ascending, disjoint `windows` inside any of `others`."""
    return subtract(windows, subtract(windows, others))


def intersect(windows: Iterable[Window], other: Window) -> list[Window]:
    """Return the parts of `windows` inside `other`; empty ones are dropped."""
    clipped = (window.clip(other.start, other.end) for window in windows)
    return [window for window in clipped if not window.is_empty]


def _merged(windows: Iterable[Window]) -> list[Window]:
    """Return the same times as ascending windows that don't touch, none of them empty."""
    merged: list[Window] = []
    for window in sorted(windows, key=attrgetter("start")):
        if merged and window.start <= merged[-1].end:
            if window.end > merged[-1].end:
                merged[-1] = Window(merged[-1].start, window.end)
        elif not window.is_empty:
            merged.append(window)
    return merged
