"""The aligned blocks of the disk cache, and arithmetic of windows.

Windows are pairs of epoch milliseconds, half-open, UTC.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from mdp_client.times import aware

Bounds: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CacheBlock:
    """A month of minutes, or a year of longer intervals."""

    name: str
    start: int
    end: int


def blocks_of(interval: str, start: int, end: int) -> Iterator[CacheBlock]:
    """Yield the blocks that a window touches, ascending."""
    is_monthly = interval.endswith("m")
    while start < end:
        time = aware(start)
        begin = datetime(time.year, time.month if is_monthly else 1, 1, tzinfo=UTC)
        following = _next_month(begin) if is_monthly else begin.replace(year=begin.year + 1)
        name = f"{begin:%Y-%m}" if is_monthly else f"{begin:%Y}"
        yield CacheBlock(name, _ms(begin), _ms(following))
        start = _ms(following)


def clip(window: Bounds, start: int, end: int) -> Bounds | None:
    """Return the part of a window inside `[start, end)`; None if there is none."""
    cut = max(window[0], start), min(window[1], end)
    return cut if cut[0] < cut[1] else None


def subtract(windows: Iterable[Bounds], taken: Iterable[Bounds]) -> list[Bounds]:
    """Return what is in `windows` and not in `taken`, ascending."""
    left = sorted(windows)
    for start, end in taken:
        left = [
            part
            for window in left
            for part in (clip(window, window[0], start), clip(window, end, window[1]))
            if part
        ]
    return left


def _next_month(begin: datetime) -> datetime:
    year, month = divmod(begin.year * 12 + begin.month, 12)
    return begin.replace(year=year, month=month + 1)


def _ms(time: datetime) -> int:
    return int(time.timestamp()) * 1000
