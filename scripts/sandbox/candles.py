"""Candles as columns, and series of them as an exchange shows them at a moment.

Invented and replayed series answer the same two questions, the first rows of a window and the last
ones, so the exchanges' wire formats need not know which they print. Nothing here reads a clock.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdp_core.domain.intervals import Grid, Int64s

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

DISTANT_FUTURE_MS = 4_133_404_800_000  # 2100-12-25, Binance's delivery date of a live perpetual
MINUTE_MS = 60_000
_LONGER_THAN_ANY_MS = 32 * 1440 * MINUTE_MS
QUOTE_DECIMALS = 5


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """Open times from `start_ms` (inclusive) to `end_ms` (exclusive).

    Epoch milliseconds, UTC.
    """

    start_ms: int
    end_ms: int

    def clipped(self) -> "TimeSpan":
        """Give the part that a calendar can express; exchanges take any integer."""
        return TimeSpan(
            *(min(max(ms, 0), DISTANT_FUTURE_MS) for ms in (self.start_ms, self.end_ms))
        )


@dataclass(frozen=True, slots=True)
class Columns:
    """Candles as columns of equal length.

    `time` is the open time in epoch milliseconds.
    """

    time: Int64s
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    quote: Floats
    trades: Int64s

    def __len__(self) -> int:
        """Count the candles."""
        return len(self.time)

    def take(self, rows: "slice | Int64s | Flags") -> "Columns":
        """Give the chosen rows, in the order chosen."""
        return Columns(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def join(cls, parts: "list[Columns]") -> "Columns":
        """Put parts one after another; at least one part is needed."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )


@dataclass(frozen=True, slots=True)
class Decimals:
    """Numbers of decimals that the prices and the volumes of a symbol have."""

    price: int
    size: int


def closes_ms(grid: Grid, times: Int64s) -> Int64s:
    """Give when the candles that open at `times` (any order) close.

    The next slot's open time.
    """
    if len(times) == 0:
        return times
    slots = grid.indices(times)
    first = int(slots.min())
    return grid.times(first + 1, int(slots.max()) + 2)[slots - first]


class PublishedSeries(ABC):
    """The candles of one symbol and interval.

    As the exchange shows them at a given moment.
    """

    def __init__(self, grid: Grid, decimals: Decimals) -> None:
        """Make a series on `grid` whose numbers have so many decimals."""
        self.grid = grid
        self.decimals = decimals

    def first(self, window: TimeSpan, limit: int, now_ms: int) -> Columns:
        """Give the first rows that open in the window, ascending.

        The forming one included.
        """
        return self._as_seen(self._first(window.clipped(), limit, now_ms), now_ms)

    def last(self, window: TimeSpan, limit: int, now_ms: int) -> Columns:
        """Give the last rows that open in the window, ascending, the forming one included."""
        return self._as_seen(self._last(window.clipped(), limit, now_ms), now_ms)

    @abstractmethod
    def newest(self, count: int, now_ms: int) -> int:
        """Tell when the oldest of the newest `count` candles opens (epoch ms)."""

    @abstractmethod
    def _first(self, window: TimeSpan, limit: int, now_ms: int) -> Columns: ...

    @abstractmethod
    def _last(self, window: TimeSpan, limit: int, now_ms: int) -> Columns: ...

    def _as_seen(self, rows: Columns, now_ms: int) -> Columns:
        """Show of the candle that is still forming what has happened so far."""
        if len(rows) == 0 or rows.time[-1] < now_ms - _LONGER_THAN_ANY_MS:
            return rows
        opens, closes = int(rows.time[-1]), int(closes_ms(self.grid, rows.time[-1:])[0])
        if closes <= now_ms:
            return rows
        elapsed = (now_ms - opens) / (closes - opens)
        return Columns.join([rows.take(slice(-1)), _partial(rows, elapsed, self.decimals)])


def _partial(rows: Columns, elapsed: float, decimals: Decimals) -> Columns:
    """Give the last row as it was when `elapsed` (0 to 1) of its time had passed.

    Volume, trades and the range only grow with time, and never beyond the final row's.
    """
    final = rows.take(slice(-1, None))
    reach = math.sqrt(elapsed)
    close = np.round(final.open + (final.close - final.open) * elapsed, decimals.price)
    high = np.round(final.open + (final.high - final.open) * reach, decimals.price)
    low = np.round(final.open + (final.low - final.open) * reach, decimals.price)
    scale = 10.0**decimals.size
    volume = np.floor(final.volume * elapsed * scale) / scale
    traded = volume > 0
    return replace(
        final,
        high=np.minimum(np.maximum(high, close), final.high),
        low=np.maximum(np.minimum(low, close), final.low),
        close=close,
        volume=volume,
        quote=np.where(traded, np.round(final.quote * elapsed, QUOTE_DECIMALS), 0.0),
        trades=np.where(traded, np.maximum(1, final.trades * elapsed), 0).astype(np.int64),
    )


class ReplayedSeries(PublishedSeries):
    """Rows as a file holds them, each from its open time on, and nothing else."""

    def __init__(self, rows: Columns, decimals: Decimals, grid: Grid) -> None:
        """Make a series of rows that are ascending and unique in time."""
        super().__init__(grid, decimals)
        self._stored = rows

    def newest(self, count: int, now_ms: int) -> int:
        """Tell when the oldest of the newest `count` rows opens."""
        visible = int(np.searchsorted(self._stored.time, now_ms + 1))
        return int(self._stored.time[max(visible - count, 0)])

    def _first(self, window: TimeSpan, limit: int, now_ms: int) -> Columns:
        rows = self._places(window, now_ms)
        return self._stored.take(slice(rows.start, min(rows.stop, rows.start + limit)))

    def _last(self, window: TimeSpan, limit: int, now_ms: int) -> Columns:
        rows = self._places(window, now_ms)
        return self._stored.take(slice(max(rows.start, rows.stop - limit), rows.stop))

    def _places(self, window: TimeSpan, now_ms: int) -> range:
        bounds = [window.start_ms, min(window.end_ms, now_ms + 1)]
        start, stop = (int(place) for place in np.searchsorted(self._stored.time, bounds))
        return range(start, max(start, stop))
