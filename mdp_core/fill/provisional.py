"""What was asked of an exchange so lately that it is not asked again.

Provisional candles, and where its memory was seen to end: known to one process, for seconds.
"""

import time
from dataclasses import dataclass, replace
from datetime import datetime

from mdp_core.domain.candles import Candles
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window

# How long it is believed where an exchange's memory was seen to end.
_FORGOTTEN_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class ProvisionalRange:
    """Closed candles that are not final yet, all there were in `window` when it was asked for."""

    window: Window
    candles: Candles
    fresh_until: float
    at_edge: bool
    """Whether `window` ended at the last closed candle then."""


class ProvisionalCache:
    """Keeps the tails of one exchange's series, each for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ranges: dict[tuple[int, int], ProvisionalRange] = {}
        self._remembered_from: dict[int, tuple[datetime, float]] = {}

    def fresh(self, series: Series, window: Window) -> list[ProvisionalRange]:
        """Give the tails that reach into `window`, ascending."""
        now = time.monotonic()
        return sorted(
            (
                provisional
                for (series_id, _), provisional in self._ranges.items()
                if series_id == series.id
                and provisional.fresh_until > now
                and not provisional.window.clip(window.start, window.end).is_empty
            ),
            key=lambda provisional: provisional.window,
        )

    def keep(
        self, series: Series, page: int, window: Window, candles: Candles, *, at_edge: bool
    ) -> None:
        """Keep what came for `window`, the end of a page, in place of what was kept of it.

        A straggler, which was asked for before the edge moved on, replaces nothing newer.
        """
        now = time.monotonic()
        self._ranges = {
            key: provisional
            for key, provisional in self._ranges.items()
            if provisional.fresh_until > now
        }
        kept = self._ranges.get((series.id, page))
        if not window.is_empty and (kept is None or kept.window.end <= window.end):
            provisional = ProvisionalRange(
                window, candles.inside(window), now + self._seconds, at_edge
            )
            self._ranges[series.id, page] = provisional

    def keep_forgotten(self, series: Series, remembered_from: datetime) -> None:
        """Note that the exchange no longer has what lies before."""
        self._remembered_from[series.id] = (remembered_from, time.monotonic() + _FORGOTTEN_SECONDS)

    def narrowed(self, series: Series, watermarks: Watermarks) -> Watermarks:
        """Cut a reach to what is asked for now.

        It ends where a fresh tail ended at the live edge: the rest is not asked for yet.
        """
        remembered = self.remembered(series, watermarks)
        ends = [
            provisional.window.end
            for provisional in self.fresh(
                series, Window(watermarks.history_start, watermarks.closed_until)
            )
            if provisional.at_edge
        ]
        return replace(remembered, closed_until=ends[-1]) if ends else remembered

    def remembered(self, series: Series, watermarks: Watermarks) -> Watermarks:
        """Cut a reach where the exchange was seen to have forgotten what lies before."""
        seen, until = self._remembered_from.get(series.id, (watermarks.retention_start, 0.0))
        if time.monotonic() >= until:
            return watermarks
        return replace(
            watermarks,
            retention_start=min(max(watermarks.retention_start, seen), watermarks.closed_until),
        )
