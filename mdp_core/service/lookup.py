"""The short way of a request: what needs no exchange is known from one look at the store.

A look tells coverage and, where fewer rows are wanted than the window has slots, when the last of
them opens. Where anything is lacking, or in doubt, nothing is found, and the request goes the long
way (`walk`), which sees for itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mdp_core.domain.candles import Candles
from mdp_core.domain.series import Series
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, intersect
from mdp_core.fill.provisional import ProvisionalRange
from mdp_core.service.scan import ScanResult
from mdp_core.storage.candles.candle_reader import CandleReader, Doubts

# Rows are looked for in so many times as many slots: enough where few trade, and a bound for how
# many chunks the look has to open.
_SPARSE = 16


@dataclass(frozen=True, slots=True)
class CachedRange:
    """What a walk would have found, the epoch that it is of, and what of it is in doubt."""

    found: ScanResult
    epoch: int
    doubts: Doubts


class CacheLookup:
    """Finds the rows of one request in the store, and in fresh tails after what is stored.

    Args:
        reader: The store's read side.
        series: Whose candles.
        reach: What can be asked for now.
        tails: Ascending; those that lie in what is asked for must not leave a gap.
    """

    def __init__(
        self,
        reader: CandleReader,
        series: Series,
        watermarks: Watermarks,
        ranges: Sequence[ProvisionalRange],
    ) -> None:
        self._reader = reader
        self._series = series
        self._watermarks = watermarks
        self._ranges = ranges

    async def first(self, asked: Window, rows: int) -> CachedRange | None:
        """Find the first `rows` candles of `asked`."""
        grid, left = (
            self._series.grid,
            asked.clip(self._watermarks.history_start, self._watermarks.closed_until),
        )
        if grid.count(asked.start, asked.end) <= rows:
            return await self._whole(asked, left)
        stored = _before(left, self._tails_in(left))
        last = min(grid.index(stored.start) + _SPARSE * rows, grid.index(stored.end))
        search = Window(stored.start, grid.at(last))
        if search.is_empty:
            return None
        look = await self._reader.locate_from_start(self._series.id, search, rows)
        if look.found:
            window = Window(asked.start, grid.next(look.found))
        elif search == left:
            window = asked
        else:
            return None
        is_known = not intersect(look.missing, window)
        return CachedRange(_stored(window), look.epoch, look.doubts) if is_known else None

    async def last(self, asked: Window, rows: int) -> CachedRange | None:
        """Find the last `rows` candles of `asked`."""
        grid, left = (
            self._series.grid,
            asked.clip(self._watermarks.history_start, self._watermarks.closed_until),
        )
        if grid.count(asked.start, asked.end) <= rows:
            return await self._whole(asked, left)
        ranges = self._tails_in(left)
        if not _are_whole(ranges, left):
            return None
        edge = _candles(ranges, left)
        if len(edge) >= rows:
            return await self._edge(asked, edge[len(edge) - rows :])
        before = asked.clip(asked.start, _before(left, ranges).end)
        return await self._before_edge(asked, before, edge, rows - len(edge))

    async def _edge(self, asked: Window, edge: Candles) -> CachedRange:
        """Answer with candles of fresh tails alone; what is stored is looked at for its epoch."""
        first = edge.row(0).time
        look = await self._reader.look(self._series.id, Window(first, first))
        found = ScanResult(Window(first, asked.end), Window(first, first), edge, [])
        return CachedRange(found, look.epoch, look.doubts)

    async def _before_edge(
        self, asked: Window, before: Window, edge: Candles, rows: int
    ) -> CachedRange | None:
        """Find the last `rows` stored candles of `before`, which the edge follows."""
        grid = self._series.grid
        stored = before.clip(self._watermarks.history_start, before.end)
        first = max(grid.index(stored.end) - _SPARSE * rows, grid.index(stored.start))
        search = Window(grid.at(first), stored.end)
        if search.is_empty:
            return None
        look = await self._reader.locate_from_end(self._series.id, search, rows)
        if look.found is None and search != stored:
            return None
        start = look.found or asked.start
        if intersect(look.missing, Window(start, stored.end)):
            return None
        found = ScanResult(Window(start, asked.end), Window(start, before.end), edge, [])
        return CachedRange(found, look.epoch, look.doubts)

    async def _whole(self, asked: Window, left: Window) -> CachedRange | None:
        """Find all of `asked`, which has no more slots than there are rows wanted."""
        ranges = self._tails_in(left)
        if left.is_empty or not _are_whole(ranges, left):
            return None
        look = await self._reader.look(self._series.id, _before(left, ranges))
        found = ScanResult(asked, _before(asked, ranges), _candles(ranges, left), [])
        return None if look.missing else CachedRange(found, look.epoch, look.doubts)

    def _tails_in(self, window: Window) -> list[ProvisionalRange]:
        return [
            provisional for provisional in self._ranges if intersect([provisional.window], window)
        ]


def _stored(window: Window) -> ScanResult:
    return ScanResult(window, window, Candles.empty(), [])


def _before(window: Window, ranges: Sequence[ProvisionalRange]) -> Window:
    """Give the part of a window that lies before every tail."""
    return window.clip(window.start, ranges[0].window.start) if ranges else window


def _are_whole(ranges: Sequence[ProvisionalRange], window: Window) -> bool:
    """Tell whether from the first tail on there is one for every slot of `window`."""
    follow = all(one.window.end == other.window.start for one, other in pairwise(ranges))
    return follow and (not ranges or ranges[-1].window.end >= window.end)


def _candles(ranges: Sequence[ProvisionalRange], window: Window) -> Candles:
    return Candles.concatenate([provisional.candles.inside(window) for provisional in ranges])
