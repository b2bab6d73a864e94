"""Absent slots: which of them are facts, which are asked for again, and how. Pure.

All slots here are indices on the series' grid.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from mdp_core.domain.candles import Bools
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window
from mdp_core.exchanges.validation import Observation

# A short run of absent slots at the edge of an answer tells no more than one between two rows.
_EDGE_SLOTS = 30
_EDGE_PART = 10
_EDGE_AGE = timedelta(hours=1)
# How many slots before it leaves the retention an absence is asked for once more.
_LEAVING_SLOTS = 3
_NO_SLOTS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence about absent slots from beside the observations.

    Attributes:
        fills_empty_intervals: Whether there is a candle even where nothing was traded.
        now: Time of the service's clock.
        ended: After the history end of an inactive symbol, up to what was closed when that was
            asked for; None: the symbol is active, or its history end is not known.
        unarchived: Slots that a believed archive file of more than two days ago lacks.
    """

    fills_empty_intervals: bool
    now: datetime
    ended: Window | None = None
    unarchived: Int64s = field(default_factory=_NO_SLOTS.copy)


def present_slots(observation: Observation, grid: Grid) -> Int64s:
    """Return the slots for which a row came, a right one or a wrong one, ascending."""
    wrong = [to_ms(row.slot) for row in observation.rejected]
    times = np.concatenate([observation.candles.time, np.array(wrong, np.int64)])
    return np.unique(grid.indices(times))


def absent_slots(observations: Sequence[Observation], grid: Grid, window: Window) -> Int64s:
    """Return the slots of `window` without a row in any observation, ascending."""
    slots = _slots(grid, window)
    present = [present_slots(observation, grid) for observation in observations]
    return slots[~np.isin(slots, np.concatenate([*present, _NO_SLOTS]))]


def final_until(absent: Int64s, grid: Grid, watermarks: Watermarks) -> datetime:
    """Return the end of the final part: before provisional and possibly late slots.

    Args:
        absent: Slots (ascending) for which the exchange had no candle.
        grid: The series' grid.
        watermarks: Of the moment before it was asked.
    """
    maybe_late = absent[absent >= grid.index(watermarks.grace_start)]
    if len(maybe_late):
        return min(watermarks.settled_until, grid.at(int(maybe_late[0])))
    return watermarks.settled_until


def confirmed_slots(
    absent: Int64s, observations: Iterable[Observation], grid: Grid, evidence: Evidence
) -> Int64s:
    """Return those of the ascending `absent` slots that are facts at once."""
    is_confirmed = np.zeros(len(absent), np.bool_)
    if evidence.ended:
        is_confirmed |= _inside(absent, grid, evidence.ended)
    for observation in [entry for entry in observations if entry.is_witness]:
        asked = _inside(absent, grid, observation.window)
        is_confirmed |= asked & np.isin(absent, evidence.unarchived)
        if not evidence.fills_empty_intervals:
            is_confirmed |= asked & _is_quiet(absent, observation, grid, evidence.now)
    return absent[is_confirmed]


def _is_quiet(absent: Int64s, observation: Observation, grid: Grid, now: datetime) -> Bools:
    """Mark slots between rows of a live observation, and short, old runs at its edge."""
    first, stop = grid.index(observation.window.start), grid.index(observation.window.end)
    present = present_slots(observation, grid)
    if not len(present):
        return np.zeros(len(absent), np.bool_)
    first_row, last_row = int(present[0]), int(present[-1])
    runs = [(first, first_row), (last_row + 1, stop)]
    longest, old = min(_EDGE_SLOTS, (stop - first) // _EDGE_PART), grid.index(now - _EDGE_AGE)
    is_quiet = (absent > first_row) & (absent < last_row)
    for begin, end in runs:
        if end - begin <= longest and end <= old:
            is_quiet |= (absent >= begin) & (absent < end)
    return is_quiet


@dataclass(frozen=True, slots=True)
class Reach:
    """The bounds of a question: the window that can be asked, slots of one request.

    `margin` is how many slots a second look reaches farther than the doubtful ones: a row that is
    known to exist beside them tells that the exchange answers.
    """

    window: Window
    most: int
    margin: int = 1


def second_looks(doubtful: Int64s, width: int, grid: Grid, reach: Reach) -> list[Window]:
    """Return the windows by which doubtful slots are asked for again.

    Args:
        doubtful: Ascending, at least one.
        width: Slots of the first question; no window has that width, where that can be avoided.
        grid: The series' grid.
        reach: How far a window may reach.
    """
    first, stop = int(doubtful[0]), int(doubtful[-1]) + 1
    lowest, highest = grid.index(reach.window.start), grid.index(reach.window.end)
    wide = (max(first - reach.margin, lowest), min(stop + reach.margin, highest))
    choices = (wide, (wide[0], stop), (first, wide[1]), (first, stop))
    for begin, end in choices:
        if end - begin != width and end - begin <= reach.most:
            return [Window(grid.at(begin), grid.at(end))]
    middle = (first + stop) // 2
    halves = ((first, middle), (middle, stop)) if stop - first > 1 else ((first, stop),)
    return [Window(grid.at(begin), grid.at(end)) for begin, end in halves]


def witnessed_slots(absent: Int64s, looks: Iterable[Observation], grid: Grid) -> Int64s:
    """Return those of the ascending `absent` slots that a live look asked for in vain."""
    is_witnessed = np.zeros(len(absent), np.bool_)
    for look in [entry for entry in looks if entry.is_live]:
        is_witnessed |= _inside(absent, grid, look.window)
    return absent[is_witnessed]


def runs_of(slots: Int64s, grid: Grid) -> list[Window]:
    """Return ascending slots as windows, neighbours in one."""
    if not len(slots):
        return []
    parts = np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1)
    return [Window(grid.at(int(part[0])), grid.at(int(part[-1]) + 1)) for part in parts]


def slots_of(windows: Iterable[Window], grid: Grid) -> Int64s:
    """Return the slots of ascending windows."""
    return np.concatenate([*(_slots(grid, window) for window in windows), _NO_SLOTS])


def _inside(slots: Int64s, grid: Grid, window: Window) -> Bools:
    return (slots >= grid.index(window.start)) & (slots < grid.index(window.end))


def _slots(grid: Grid, window: Window) -> Int64s:
    return np.arange(grid.index(window.start), grid.index(window.end), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class RecheckPlan:
    """When absent slots are asked for again.

    `after` are the ages of an absence at which it is rechecked; `memory` is how many slots the
    exchange remembers, None: all.
    """

    after: Sequence[timedelta]
    memory: int | None

    def next_due(
        self, window: Window, grid: Grid, first_observed: datetime, now: datetime
    ) -> datetime | None:
        """Return when an absence is rechecked next; None: this recheck was the last.

        One recheck stands for all that were due before it. Shortly before its first slot leaves
        the retention there is one more, and something is to be done when it has left.
        """
        due = next((first_observed + age for age in self.after if first_observed + age > now), None)
        if due is None or self.memory is None:
            return due
        forgotten = grid.index(window.start) + self.memory - 1
        leaving = [grid.at(forgotten - _LEAVING_SLOTS), grid.at(forgotten)]
        return min([due, *(time for time in leaving if time > now)])


def asked_together(
    windows: Sequence[Window], grid: Grid, weigh: Callable[[int], float], most: int
) -> list[Window]:
    """Return hulls of ascending windows that one request may cover at no higher cost.

    Args:
        windows: Disjoint.
        grid: The series' grid.
        weigh: Tells what a request for so many slots costs.
        most: Slots of one request; what is longer is parted.
    """
    hulls: list[tuple[int, int]] = []
    for window in windows:
        first, stop = grid.index(window.start), grid.index(window.end)
        parts = [(begin, min(begin + most, stop)) for begin in range(first, stop, most)]
        if hulls and _costs_no_more(hulls[-1], parts[0], weigh, most):
            hulls[-1] = (hulls[-1][0], parts.pop(0)[1])
        hulls += parts
    return [Window(grid.at(begin), grid.at(end)) for begin, end in hulls]


def _costs_no_more(
    one: tuple[int, int], other: tuple[int, int], weigh: Callable[[int], float], most: int
) -> bool:
    together = other[1] - one[0]
    apart = weigh(one[1] - one[0]) + weigh(other[1] - other[0])
    return together <= most and weigh(together) <= apart
