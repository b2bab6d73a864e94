"""Absent slots: which of them are asked for again, and where finality ends. Pure."""

from datetime import datetime

import numpy as np

from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.watermarks import Reach
from mdp_core.domain.windows import Window

_UNREMARKABLE_SLOTS = 30


def doubtful_slots(absent: Int64s, grid: Grid, reach: Reach) -> Int64s:
    """Give those absent slots that can't be merely late: they would count as "no candle"."""
    return absent[absent < grid.index(reach.late_from)]


def remarkable_slots(absent: Int64s, grid: Grid, window: Window) -> Int64s:
    """Give those absent slots that are odd even where nobody need have traded.

    They are all of a wholly empty window, and a run of more than 30 at an edge of it.
    """
    first, stop = grid.index(window.start), grid.index(window.end)
    leading = absent[absent == np.arange(first, first + len(absent))]
    trailing = absent[absent == np.arange(stop - len(absent), stop)]
    is_empty = len(absent) == stop - first
    odd = [run for run in (leading, trailing) if is_empty or len(run) > _UNREMARKABLE_SLOTS]
    return np.unique(np.concatenate([*odd, absent[:0]]))


def final_until(absent: Int64s, grid: Grid, reach: Reach) -> datetime:
    """Tell up to when an answer is final: before what is provisional, and before what may be late.

    Args:
        absent: Slots (ascending) for which the exchange had no candle.
        grid: The series' grid.
        reach: Of the moment before it was asked.
    """
    maybe_late = absent[absent >= grid.index(reach.late_from)]
    if len(maybe_late):
        return min(reach.settled, grid.at(int(maybe_late[0])))
    return reach.settled
