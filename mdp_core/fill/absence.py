"""Absent slots: which of them are asked for again, and where finality ends. Pure."""

from datetime import datetime

import numpy as np

from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window

_UNREMARKABLE_SLOTS = 30


def recheckable_slots(absent: Int64s, grid: Grid, watermarks: Watermarks) -> Int64s:
    """Give those absent slots that can't be merely late: they would count as "no candle"."""
    return absent[absent < grid.index(watermarks.grace_start)]


def suspicious_slots(absent: Int64s, grid: Grid, window: Window) -> Int64s:
    """Give those absent slots that are odd even where nobody need have traded.

    They are all of a wholly empty window, and a run of more than 30 at an edge of it.
    """
    first, stop = grid.index(window.start), grid.index(window.end)
    leading = absent[absent == np.arange(first, first + len(absent))]
    trailing = absent[absent == np.arange(stop - len(absent), stop)]
    is_empty = len(absent) == stop - first
    odd = [run for run in (leading, trailing) if is_empty or len(run) > _UNREMARKABLE_SLOTS]
    return np.unique(np.concatenate([*odd, absent[:0]]))


def final_until(absent: Int64s, grid: Grid, watermarks: Watermarks) -> datetime:
    """Tell up to when an answer is final: before what is provisional, and before what may be late.

    Args:
        absent: Slots (ascending) for which the exchange had no candle.
        grid: The series' grid.
        watermarks: Of the moment before it was asked.
    """
    maybe_late = absent[absent >= grid.index(watermarks.grace_start)]
    if len(maybe_late):
        return min(watermarks.settled_until, grid.at(int(maybe_late[0])))
    return watermarks.settled_until
