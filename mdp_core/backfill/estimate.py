"""Estimates of fills: candles, pages, weight and seconds. Pure.

The same plan is made here that a fill follows: pages on the canonical grid, neighbours in one
request where the exchange allows it, and of each request only the hull of what is not covered.
What can't be known before is left out: an absent candle is asked for once more.

No page is looked at by itself: what decades take is told as soon as what a day takes.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from mdp_core.domain.intervals import Grid
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, intersect
from mdp_core.ratelimit.tariff import Terms


@dataclass(frozen=True, slots=True)
class Estimate:
    """The candles, pages, weight and seconds of some windows.

    `slots` are those that are stored or that the exchange can still give, `candles` those of them
    that must be fetched, at the most: slots without trades may have none. `seconds` includes
    the wait for what is queued ahead.
    """

    slots: int = 0
    candles: int = 0
    pages: int = 0
    requests: int = 0
    weight: float = 0.0
    seconds: float = 0.0

    @property
    def cached_share(self) -> float:
        """The part that is stored already; of nothing all is."""
        return 1 - self.candles / self.slots if self.slots else 1.0

    def __add__(self, other: Self) -> Self:
        """Put two together that are filled one after the other."""
        return type(self)(
            self.slots + other.slots,
            self.candles + other.candles,
            self.pages + other.pages,
            self.requests + other.requests,
            self.weight + other.weight,
            self.seconds + other.seconds,
        )

    def behind(self, weight: float, terms: Terms) -> Self:
        """Give the same with `weight` queued ahead."""
        waited = self.seconds + weight / terms.per_second
        return type(self)(self.slots, self.candles, self.pages, self.requests, self.weight, waited)


def page_hull(window: Window, grid: Grid, page_size: int, watermarks: Watermarks) -> Window:
    """Grow a window to the pages that it lies in, as far as the exchange can be asked."""
    inside = window.clip(watermarks.retention_start, watermarks.closed_until)
    if inside.is_empty:
        return inside
    first = grid.index(inside.start) // page_size * page_size
    stop = -(-grid.index(inside.end) // page_size) * page_size
    return Window(
        max(grid.at(first), watermarks.retention_start), min(grid.at(stop), watermarks.closed_until)
    )


def estimate(
    window: Window, missing: Sequence[Window], grid: Grid, watermarks: Watermarks, terms: Terms
) -> Estimate:
    """Tell what it takes to fill `window`.

    Args:
        window: On the grid.
        missing: What is not covered (ascending) of the pages that the window lies in.
        grid: The series' grid.
        watermarks: What can be asked for.
        terms: The exchange's.
    """
    known = window.clip(watermarks.history_start, watermarks.closed_until)
    forgotten = intersect(missing, known.clip(watermarks.history_start, watermarks.retention_start))
    wanted = intersect(missing, known.clip(watermarks.retention_start, watermarks.closed_until))
    stretches = _stretches(wanted, grid, terms.page_size)
    gaps = _Gaps(
        [(grid.index(gap.start), grid.index(gap.end)) for gap in missing], grid, watermarks
    )
    weight = float(sum(_weigh(pages, gaps, terms) for pages in stretches))
    return Estimate(
        slots=grid.count(known.start, known.end) - _count(forgotten, grid),
        candles=_count(wanted, grid),
        pages=sum(map(len, stretches)),
        requests=sum(-(-len(pages) // terms.pages_per_request) for pages in stretches),
        weight=weight,
        seconds=weight / terms.per_second,
    )


def _stretches(wanted: Sequence[Window], grid: Grid, page_size: int) -> list[range]:
    """Give the pages (indices) that windows lie in, neighbours together."""
    stretches: list[range] = []
    for window in wanted:
        first = grid.index(window.start) // page_size
        stop = -(-grid.index(window.end) // page_size)
        if stretches and first <= stretches[-1].stop:
            stretches[-1] = range(stretches[-1].start, max(stop, stretches[-1].stop))
        else:
            stretches.append(range(first, stop))
    return stretches


class _Gaps:
    """The gaps that can be fetched, as ascending pairs of slots."""

    def __init__(self, gaps: Sequence[tuple[int, int]], grid: Grid, watermarks: Watermarks) -> None:
        self._starts = [start for start, _ in gaps]
        self._stops = [stop for _, stop in gaps]
        self._edges = sorted([*self._starts, *self._stops])
        self._earliest, self._closed = (
            grid.index(watermarks.retention_start),
            grid.index(watermarks.closed_until),
        )

    def edges(self, start: int, stop: int) -> list[int]:
        """Give the slots after `start` and before `stop` where a gap begins or ends."""
        return self._edges[bisect_right(self._edges, start) : bisect_left(self._edges, stop)]

    def hull(self, start: int, stop: int) -> int:
        """Count the slots from the first to the last that is missing in `[start, stop)`."""
        start, stop = max(start, self._earliest), min(stop, self._closed)
        first = max(start, self._starts[bisect_right(self._stops, start)])
        return min(stop, self._stops[bisect_left(self._starts, stop) - 1]) - first


def _weigh(pages: range, gaps: _Gaps, terms: Terms) -> float:
    """Weigh the requests for adjacent pages; only the ends and edges differ."""
    size = terms.page_size * terms.pages_per_request
    start, stop = pages.start * terms.page_size, pages.stop * terms.page_size
    requests = -(-(stop - start) // size)
    odd = {0, requests - 1}
    for edge in gaps.edges(start, stop):
        odd |= {(edge - start) // size, (edge - start - 1) // size}
    bounds = [(start + page * size, min(start + (page + 1) * size, stop)) for page in odd]
    asked = sum(terms.request_weight(gaps.hull(*bound)) for bound in bounds)
    return asked + (requests - len(odd)) * terms.request_weight(size)


def _count(windows: Iterable[Window], grid: Grid) -> int:
    return sum(grid.count(window.start, window.end) for window in windows)
