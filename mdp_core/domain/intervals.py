"""Intervals and the grids of their candles: all calendar arithmetic.

A grid numbers its slots (open times) with integers; everything else follows from `index` and `at`.
Weeks have a phase and months no fixed length, so no other module divides by a step.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from mdp_core.domain.clock import EPOCH, to_ms

Int64s: TypeAlias = NDArray[np.int64]


class Interval(StrEnum):
    """The duration of a candle, as requests and answers spell it."""

    ONE_MINUTE = "1m"
    THREE_MINUTES = "3m"
    FIVE_MINUTES = "5m"
    FIFTEEN_MINUTES = "15m"
    THIRTY_MINUTES = "30m"
    ONE_HOUR = "1h"
    TWO_HOURS = "2h"
    FOUR_HOURS = "4h"
    SIX_HOURS = "6h"
    EIGHT_HOURS = "8h"
    TWELVE_HOURS = "12h"
    ONE_DAY = "1d"
    THREE_DAYS = "3d"
    ONE_WEEK = "1w"
    ONE_MONTH = "1M"


class Grid(ABC):
    """The open times of a series: slot 0 is the anchor, slot -1 the one before it."""

    @abstractmethod
    def index(self, time: datetime) -> int:
        """Number the slot that `time` falls into."""

    @abstractmethod
    def at(self, index: int) -> datetime:
        """Give the open time of a slot."""

    @abstractmethod
    def indices(self, times_ms: Int64s) -> Int64s:
        """Number the slots of many times (epoch ms), as `index` does."""

    @abstractmethod
    def times(self, first: int, stop: int) -> Int64s:
        """Give the open times (epoch ms) of the slots `first` to `stop`, exclusive."""

    def floor(self, time: datetime) -> datetime:
        """Give the last open time at or before `time`."""
        return self.at(self.index(time))

    def ceil(self, time: datetime) -> datetime:
        """Give the first open time at or after `time`."""
        floor = self.floor(time)
        return floor if floor == time else self.next(floor)

    def next(self, time: datetime) -> datetime:
        """Give the first open time after `time`: when the candle that holds `time` closes."""
        return self.at(self.index(time) + 1)

    def count(self, start: datetime, end: datetime) -> int:
        """Count the slots that open in `[start, end)`; both must lie on the grid."""
        return self.index(end) - self.index(start)


@dataclass(frozen=True, slots=True)
class FixedGrid(Grid):
    """Every `step`, shifted from the epoch by `phase`."""

    step: timedelta
    phase: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        """Refuse what would make two equal grids differ."""
        if not timedelta(0) <= self.phase < self.step:
            message = f"phase {self.phase} must lie in [0, {self.step})"
            raise ValueError(message)

    @override
    def index(self, time: datetime) -> int:
        return (time - EPOCH - self.phase) // self.step

    @override
    def at(self, index: int) -> datetime:
        return EPOCH + self.phase + index * self.step

    @override
    def indices(self, times_ms: Int64s) -> Int64s:
        return (times_ms - _milliseconds(self.phase)) // _milliseconds(self.step)

    @override
    def times(self, first: int, stop: int) -> Int64s:
        step = _milliseconds(self.step)
        return np.arange(first, stop, dtype=np.int64) * step + _milliseconds(self.phase)

    def with_phase_of(self, time: datetime) -> "FixedGrid":
        """Give the grid of the same step on which `time` opens a candle."""
        return FixedGrid(self.step, (time - EPOCH) % self.step)


@dataclass(frozen=True, slots=True)
class MonthGrid(Grid):
    """The first of every calendar month, UTC; slot 0 is January 1970."""

    @override
    def index(self, time: datetime) -> int:
        return (time.year - EPOCH.year) * 12 + time.month - 1

    @override
    def at(self, index: int) -> datetime:
        years, month = divmod(index, 12)
        return datetime(EPOCH.year + years, month + 1, 1, tzinfo=UTC)

    @override
    def indices(self, times_ms: Int64s) -> Int64s:
        return times_ms.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)

    @override
    def times(self, first: int, stop: int) -> Int64s:
        months = np.arange(first, stop, dtype=np.int64).astype("datetime64[M]")
        return months.astype("datetime64[ms]").astype(np.int64)


def _milliseconds(duration: timedelta) -> int:
    return to_ms(EPOCH + duration)


_STEPS = {
    Interval.ONE_MINUTE: timedelta(minutes=1),
    Interval.THREE_MINUTES: timedelta(minutes=3),
    Interval.FIVE_MINUTES: timedelta(minutes=5),
    Interval.FIFTEEN_MINUTES: timedelta(minutes=15),
    Interval.THIRTY_MINUTES: timedelta(minutes=30),
    Interval.ONE_HOUR: timedelta(hours=1),
    Interval.TWO_HOURS: timedelta(hours=2),
    Interval.FOUR_HOURS: timedelta(hours=4),
    Interval.SIX_HOURS: timedelta(hours=6),
    Interval.EIGHT_HOURS: timedelta(hours=8),
    Interval.TWELVE_HOURS: timedelta(hours=12),
    Interval.ONE_DAY: timedelta(days=1),
    Interval.THREE_DAYS: timedelta(days=3),
    Interval.ONE_WEEK: timedelta(weeks=1),
}


def epoch_grid(interval: Interval, phase: timedelta = timedelta(0)) -> Grid:
    """Return an interval's usual grid: multiples from the epoch, or months.

    Args:
        interval: Any interval; `1M` gives calendar months whatever the phase.
        phase: How much later than the epoch the grid's anchor lies.
    """
    if interval is Interval.ONE_MONTH:
        return MonthGrid()
    return FixedGrid(_STEPS[interval], phase)
