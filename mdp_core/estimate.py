"""What filling a window takes, told before it is done. Pure.

The same plan is made here that a fill follows: pages on the canonical grid, neighbours in one
request where the exchange allows it, and of each request only the hull of what is not covered.
What can't be known before is left out: an absent candle is asked for once more.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from mdp_core.intervals import Grid
from mdp_core.model import Window, hull
from mdp_core.planner import Page, Reach, adjacent_runs, common, plan


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms an exchange gives candles.

    `request_weight` tells what a request for so many slots costs, `per_second` how much of that
    may be spent for long.
    """

    page_size: int
    pages_per_request: int
    request_weight: Callable[[int], float]
    per_second: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What it takes to have everything of some windows.

    `slots` are those that are stored or that the exchange can still give, `candles` those of them
    that must be fetched, at the most: where nobody traded there may be none. `seconds` includes
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


def page_hull(window: Window, grid: Grid, page_size: int, reach: Reach) -> Window:
    """Grow a window to the pages that it lies in, as far as the exchange can be asked."""
    pages = plan([window], grid, page_size, reach)
    return hull([page.window for page in pages]) if pages else window.clip(*[window.start] * 2)


def estimate(
    window: Window, missing: Sequence[Window], grid: Grid, reach: Reach, terms: Terms
) -> Estimate:
    """Tell what it takes to fill `window`.

    Args:
        window: On the grid.
        missing: What is not covered (ascending) of the pages that the window lies in.
        grid: The series' grid.
        reach: What can be asked for.
        terms: The exchange's.
    """
    known = window.clip(reach.begins, reach.closed)
    forgotten = common(missing, known.clip(reach.begins, reach.earliest))
    wanted = common(missing, known.clip(reach.earliest, reach.closed))
    pages = plan(wanted, grid, terms.page_size, reach)
    requests = adjacent_runs(pages, terms.pages_per_request)
    slots = [_asked_slots(request, missing, grid) for request in requests]
    weight = float(sum(map(terms.request_weight, slots)))
    return Estimate(
        slots=grid.count(known.start, known.end) - _count(forgotten, grid),
        candles=_count(wanted, grid),
        pages=len(pages),
        requests=len(requests),
        weight=weight,
        seconds=weight / terms.per_second,
    )


def _asked_slots(request: Sequence[Page], missing: Sequence[Window], grid: Grid) -> int:
    asked = hull(common(missing, hull([page.window for page in request])))
    return grid.count(asked.start, asked.end)


def _count(windows: Iterable[Window], grid: Grid) -> int:
    return sum(grid.count(window.start, window.end) for window in windows)
