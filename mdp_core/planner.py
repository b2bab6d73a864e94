"""From gaps to pages: what to ask an exchange for. Pure.

Pages lie on a canonical grid (page index = slot index // page size), so that whoever asks for
overlapping windows asks for the same pages, and a page is asked for once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from mdp_core.intervals import Grid, Int64s
from mdp_core.model import Window

_UNREMARKABLE_SLOTS = 30


@dataclass(frozen=True, slots=True)
class Reach:
    """What can be asked of the exchange for a series now, and how far to trust the answer.

    There is nothing before `begins`, and nothing before `earliest` can be had any more. Slots
    before `settled` are final, slots from `closed` on are still forming. A slot from `late_from` on
    that is absent may only be late. All on the grid.
    """

    begins: datetime
    earliest: datetime
    settled: datetime
    closed: datetime
    late_from: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """The unit of fetching: `window` is the page clipped to what can be asked for."""

    index: int
    window: Window


def plan(gaps: Sequence[Window], grid: Grid, page_size: int, reach: Reach) -> list[Page]:
    """Grow gaps to the pages they lie in.

    Args:
        gaps: Ascending, disjoint, on the grid.
        grid: The series' grid.
        page_size: Slots of one page.
        reach: What every page is clipped to.

    Returns:
        Each page once, ascending; none is empty.
    """
    pages: dict[int, Page] = {}
    for gap in gaps:
        inside = gap.clip(reach.earliest, reach.closed)
        if inside.is_empty:
            continue
        first = grid.index(inside.start) // page_size
        last = (grid.index(inside.end) - 1) // page_size
        for index in range(first, last + 1):
            pages[index] = _page(index, grid, page_size, reach)
    return [pages[index] for index in sorted(pages)]


def _page(index: int, grid: Grid, page_size: int, reach: Reach) -> Page:
    whole = Window(grid.at(index * page_size), grid.at((index + 1) * page_size))
    return Page(index, whole.clip(reach.earliest, reach.closed))


def adjacent_runs(pages: Sequence[Page], most: int) -> list[list[Page]]:
    """Group ascending pages to runs of neighbours, at most `most` in each."""
    grouped: list[list[Page]] = []
    for page in pages:
        if grouped and len(grouped[-1]) < most and page.index == grouped[-1][-1].index + 1:
            grouped[-1].append(page)
        else:
            grouped.append([page])
    return grouped


def absent_slots(times_ms: Int64s, grid: Grid, window: Window) -> Int64s:
    """Give the slots (indices, ascending) of `window` at which no candle opens."""
    slots = np.arange(grid.index(window.start), grid.index(window.end), dtype=np.int64)
    return slots[~np.isin(slots, grid.indices(times_ms))]


def subtract(windows: Iterable[Window], holes: Iterable[Window]) -> list[Window]:
    """Take `holes` out of ascending, disjoint `windows`; what is empty goes."""
    left = list(windows)
    for hole in holes:
        parts = (part for window in left for part in _around(window, hole))
        left = [part for part in parts if not part.is_empty]
    return left


def common(windows: Iterable[Window], other: Window) -> list[Window]:
    """Give what of `windows` lies inside `other`; what is empty goes."""
    clipped = (window.clip(other.start, other.end) for window in windows)
    return [window for window in clipped if not window.is_empty]


def _around(window: Window, hole: Window) -> tuple[Window, Window]:
    return window.clip(window.start, hole.start), window.clip(hole.end, window.end)


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
