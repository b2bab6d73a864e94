"""The request of a scan, and its outcome. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from mdp_core.domain.candles import Candles
from mdp_core.domain.queries import CacheState, Missing
from mdp_core.domain.series import Series
from mdp_core.domain.versions import Versions
from mdp_core.domain.windows import Window
from mdp_core.storage.candles.candle_reader import Doubts


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """A request for `rows` candles of `asked` that fetches at most `pages`.

    The last rows are wanted if it is `from_end`, else the first. With `partial` a page that can't
    be had is no error.
    """

    series: Series
    asked: Window
    rows: int
    pages: int
    from_end: bool
    partial: bool

    def take(self, window: Window, slots: int) -> Window:
        """Return at most `slots` slots of a window, at the end where rows are wanted."""
        grid = self.series.grid
        if self.from_end:
            first = max(grid.index(window.end) - slots, grid.index(window.start))
            return Window(grid.at(first), window.end)
        stop = min(grid.index(window.start) + slots, grid.index(window.end))
        return Window(window.start, grid.at(stop))

    def scanned(self, scope: Window, part: Window) -> Window:
        """Return the part of `asked` that is known once `part` of `scope` is."""
        if part == scope:
            return self.asked
        if self.from_end:
            return Window(part.start, self.asked.end)
        return Window(self.asked.start, part.end)


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The outcome of a scan.

    `window` holds no more candles than were wanted: those of `stored` are in the store, `edge`
    holds those after it, which may still change. `missing` could not be had. `versions` are
    those of the moment at which the coverage was read.
    """

    window: Window
    stored: Window
    edge: Candles
    missing: Sequence[Missing]
    versions: Versions
    cache: CacheState
    doubts: Sequence[Doubts]
    """Unconfirmed slots around the window, and when they are asked for again."""
