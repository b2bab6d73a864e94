"""Grow gaps to pages, the units of a request to an exchange. Pure.

Pages lie on a canonical grid (page index = slot index // page size), so that requests for
overlapping windows want the same pages, and a page is asked for once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mdp_core.domain.intervals import Grid
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window


@dataclass(frozen=True, slots=True)
class Page:
    """The unit of fetching: `window` is the page clipped to what can be asked for."""

    index: int
    window: Window


def plan(gaps: Sequence[Window], grid: Grid, page_size: int, watermarks: Watermarks) -> list[Page]:
    """Grow gaps to the pages they lie in.

    Args:
        gaps: Ascending, disjoint, on the grid.
        grid: The series' grid.
        page_size: Slots of one page.
        watermarks: What every page is clipped to.

    Returns:
        Each page once, ascending; none is empty.
    """
    pages: dict[int, Page] = {}
    for gap in gaps:
        inside = gap.clip(watermarks.retention_start, watermarks.closed_until)
        if inside.is_empty:
            continue
        first = grid.index(inside.start) // page_size
        last = (grid.index(inside.end) - 1) // page_size
        for index in range(first, last + 1):
            pages[index] = _page(index, grid, page_size, watermarks)
    return [pages[index] for index in sorted(pages)]


def _page(index: int, grid: Grid, page_size: int, watermarks: Watermarks) -> Page:
    whole = Window(grid.at(index * page_size), grid.at((index + 1) * page_size))
    return Page(index, whole.clip(watermarks.retention_start, watermarks.closed_until))


def adjacent_runs(pages: Sequence[Page], most: int) -> list[list[Page]]:
    """Group ascending pages to runs of neighbours, at most `most` in each."""
    grouped: list[list[Page]] = []
    for page in pages:
        if grouped and len(grouped[-1]) < most and page.index == grouped[-1][-1].index + 1:
            grouped[-1].append(page)
        else:
            grouped.append([page])
    return grouped
