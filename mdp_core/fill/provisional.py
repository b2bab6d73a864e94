"""Short-lived cache of provisional candles, per process.

Beside them the ends of an exchange's retention that were seen.
"""

import time
from dataclasses import dataclass, replace
from datetime import datetime

from cachetools import TTLCache

from mdp_core.domain.candles import Candles
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, intersect

# How long an end of an exchange's retention is remembered that was seen.
_FORGOTTEN_SECONDS = 60.0

# How many series are remembered at the most, each with a range or two.
_MOST_SERIES = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class ProvisionalRange:
    """Closed candles that are not final yet, all there were in `window` when it was asked for."""

    window: Window
    candles: Candles
    fresh_until: float
    at_edge: bool
    """Whether `window` ended at the last closed candle then."""


class ProvisionalCache:
    """The provisional ranges of one exchange's series, each for `seconds`, by series and page."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ranges = TTLCache[int, dict[int, ProvisionalRange]](_MOST_SERIES, seconds)
        self._retention_starts = TTLCache[int, datetime](_MOST_SERIES, _FORGOTTEN_SECONDS)

    def fresh(self, series: Series, window: Window) -> list[ProvisionalRange]:
        """Return the ranges that reach into `window`, ascending."""
        ranges = self._fresh(series).values()
        touching = [part for part in ranges if intersect([part.window], window)]
        return sorted(touching, key=lambda part: part.window)

    def keep(
        self, series: Series, page: int, window: Window, candles: Candles, *, at_edge: bool
    ) -> None:
        """Cache what came for `window`, the end of a page, in place of what was cached of it.

        A straggler, which was asked for before the edge moved on, replaces nothing newer.
        """
        if window.is_empty:
            return
        ranges = self._fresh(series)
        if page not in ranges or ranges[page].window.end <= window.end:
            until = time.monotonic() + self._seconds
            ranges[page] = ProvisionalRange(window, candles.inside(window), until, at_edge)
        self._ranges[series.id] = ranges  # counts from now on: as long as its newest range

    def keep_forgotten(self, series: Series, remembered_from: datetime) -> None:
        """Note that the exchange no longer has what lies before."""
        self._retention_starts[series.id] = remembered_from

    def _fresh(self, series: Series) -> dict[int, ProvisionalRange]:
        now, ranges = time.monotonic(), self._ranges.get(series.id) or {}
        return {page: part for page, part in ranges.items() if part.fresh_until > now}

    def narrowed(self, series: Series, watermarks: Watermarks) -> Watermarks:
        """Cut watermarks to what is asked for now.

        They end where a fresh range ended at the live edge: the rest is not asked for yet.
        """
        remembered = self.remembered(series, watermarks)
        known = Window(watermarks.history_start, watermarks.closed_until)
        ends = [part.window.end for part in self.fresh(series, known) if part.at_edge]
        return replace(remembered, closed_until=ends[-1]) if ends else remembered

    def remembered(self, series: Series, watermarks: Watermarks) -> Watermarks:
        """Cut watermarks where the exchange was seen to have forgotten what lies before."""
        if (seen := self._retention_starts.get(series.id)) is None:
            return watermarks
        start = min(max(watermarks.retention_start, seen), watermarks.closed_until)
        return replace(watermarks, retention_start=start)
