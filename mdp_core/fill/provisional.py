"""What was asked of an exchange so lately that it is not asked again.

Provisional candles, and where its memory was seen to end: known to one process, for seconds.
"""

import time
from dataclasses import dataclass, replace
from datetime import datetime

from mdp_core.domain.candles import Candles
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Reach
from mdp_core.domain.windows import Window

# How long it is believed where an exchange's memory was seen to end.
_FORGOTTEN_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Closed candles that are not final yet, all there were in `window` when it was asked for."""

    window: Window
    candles: Candles
    fresh_until: float
    at_edge: bool
    """Whether `window` ended at the last closed candle then."""


class Tails:
    """Keeps the tails of one exchange's series, each for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tails: dict[tuple[int, int], Tail] = {}
        self._remembered_from: dict[int, tuple[datetime, float]] = {}

    def fresh(self, series: Series, window: Window) -> list[Tail]:
        """Give the tails that reach into `window`, ascending."""
        now = time.monotonic()
        return sorted(
            (
                tail
                for (series_id, _), tail in self._tails.items()
                if series_id == series.id
                and tail.fresh_until > now
                and not tail.window.clip(window.start, window.end).is_empty
            ),
            key=lambda tail: tail.window,
        )

    def keep(
        self, series: Series, page: int, window: Window, candles: Candles, *, at_edge: bool
    ) -> None:
        """Keep what came for `window`, the end of a page, in place of what was kept of it.

        A straggler, which was asked for before the edge moved on, replaces nothing newer.
        """
        now = time.monotonic()
        self._tails = {key: tail for key, tail in self._tails.items() if tail.fresh_until > now}
        kept = self._tails.get((series.id, page))
        if not window.is_empty and (kept is None or kept.window.end <= window.end):
            tail = Tail(window, candles.inside(window), now + self._seconds, at_edge)
            self._tails[series.id, page] = tail

    def keep_forgotten(self, series: Series, remembered_from: datetime) -> None:
        """Note that the exchange no longer has what lies before."""
        self._remembered_from[series.id] = (remembered_from, time.monotonic() + _FORGOTTEN_SECONDS)

    def narrowed(self, series: Series, reach: Reach) -> Reach:
        """Cut a reach to what is asked for now.

        It ends where a fresh tail ended at the live edge: the rest is not asked for yet.
        """
        remembered = self.remembered(series, reach)
        ends = [
            tail.window.end
            for tail in self.fresh(series, Window(reach.begins, reach.closed))
            if tail.at_edge
        ]
        return replace(remembered, closed=ends[-1]) if ends else remembered

    def remembered(self, series: Series, reach: Reach) -> Reach:
        """Cut a reach where the exchange was seen to have forgotten what lies before."""
        seen, until = self._remembered_from.get(series.id, (reach.earliest, 0.0))
        if time.monotonic() >= until:
            return reach
        return replace(reach, earliest=min(max(reach.earliest, seen), reach.closed))
