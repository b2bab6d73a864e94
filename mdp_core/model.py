"""The types that travel the house: windows, series, and candles as columns."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdp_core.clock import from_ms, to_ms
from mdp_core.intervals import Grid, Int64s, Interval

Float64s: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open span `[start, end)` of open times; aware, UTC; empty where both are equal."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuse naive times and a start after the end."""
        if self.start.tzinfo is not UTC or self.end.tzinfo is not UTC:
            message = f"a window needs UTC times, got {self.start!r} and {self.end!r}"
            raise ValueError(message)
        if self.start > self.end:
            message = f"a window can't start ({self.start}) after its end ({self.end})"
            raise ValueError(message)

    def __str__(self) -> str:
        """Give both bounds as ISO-8601 writes an interval."""
        return f"{self.start.isoformat()}/{self.end.isoformat()}".replace("+00:00", "Z")

    @property
    def is_empty(self) -> bool:
        """Whether no time lies inside."""
        return self.start == self.end

    def clip(self, start: datetime, end: datetime) -> Self:
        """Give the part inside `[start, end)`; where nothing is left, an empty window inside."""
        clipped = min(max(self.start, start), self.end)
        return type(self)(clipped, max(min(self.end, end), clipped))


def hull(windows: list[Window]) -> Window:
    """Give the smallest window around ascending, non-empty `windows` (at least one)."""
    return Window(windows[0].start, windows[-1].end)


@dataclass(frozen=True, slots=True)
class Symbol:
    """What an exchange trades, under our name (`BASE-QUOTE`) and under its own."""

    exchange: str
    market_type: str
    name: str
    native: str
    base: str
    quote: str
    active: bool
    multiplier: int = 1
    tick_size: float | None = None
    step_size: float | None = None
    listed_at: datetime | None = None
    delisted_at: datetime | None = None

    @property
    def ccxt_name(self) -> str:
        """The same market as ccxt writes it."""
        spot = f"{self.base.upper()}/{self.quote.upper()}"
        return spot if self.market_type == "spot" else f"{spot}:{self.quote.upper()}"


@dataclass(frozen=True, slots=True)
class Series:
    """One stored series: whose candles, on which grid, and from when on there are any.

    `history_begins` is the open time of the exchange's first candle, None while unknown.
    """

    id: int
    symbol: Symbol
    interval: Interval
    grid: Grid
    history_begins: datetime | None

    @property
    def exchange(self) -> str:
        """The exchange's name."""
        return self.symbol.exchange

    def __str__(self) -> str:
        """Give the four words that name it."""
        symbol = self.symbol
        return f"{symbol.exchange} {symbol.market_type} {symbol.name} {self.interval}"


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle. `time` is the open time (UTC), `volume` in base units."""

    time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None
    trades: int | None


@dataclass(frozen=True, slots=True)
class Candles:
    """Candles as columns of one length; `time` in epoch milliseconds (UTC) of the open.

    `quote_volume` and `trades` are NaN where the exchange gives none. Inside the house rows are
    ascending and unique by time; only what comes straight from an adapter may be otherwise.
    """

    time: Int64s
    open: Float64s
    high: Float64s
    low: Float64s
    close: Float64s
    volume: Float64s
    quote_volume: Float64s
    trades: Float64s

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.time)

    def __getitem__(self, rows: slice | Bools | Int64s) -> Self:
        """Choose rows by slice, mask or positions."""
        return type(self)(*(getattr(self, name)[rows] for name in COLUMNS))

    @classmethod
    def empty(cls) -> Self:
        """Give no candles."""
        nothing = np.empty(0, np.float64)
        return cls(np.empty(0, np.int64), *(nothing,) * (len(COLUMNS) - 1))

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Put candles one after another; no order is made."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in COLUMNS))

    def inside(self, window: Window) -> Self:
        """Choose the rows that open in `window`, whatever their order."""
        return self[(self.time >= to_ms(window.start)) & (self.time < to_ms(window.end))]

    def differences(self, other: Self) -> int:
        """Count the times at which only one of both has a candle, or they have different ones.

        Both must be ascending and unique.
        """
        both, here, there = np.intersect1d(
            self.time, other.time, assume_unique=True, return_indices=True
        )
        same = np.ones(len(both), np.bool_)
        for name in COLUMNS[1:]:
            mine, theirs = getattr(self, name)[here], getattr(other, name)[there]
            same &= (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
        return len(self) + len(other) - len(both) - int(same.sum())

    def row(self, position: int) -> Candle:
        """Give one row as a `Candle`."""
        quote_volume, trades = float(self.quote_volume[position]), float(self.trades[position])
        return Candle(
            from_ms(int(self.time[position])),
            *(float(getattr(self, name)[position]) for name in COLUMNS[1:6]),
            quote_volume=None if np.isnan(quote_volume) else quote_volume,
            trades=None if np.isnan(trades) else int(trades),
        )


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that an exchange sent for a slot (its open time) and that can't be right."""

    slot: datetime
    row: str
    reason: str


COLUMNS = tuple(field.name for field in fields(Candles))
"""The columns' names, in the order of the table, of binary COPY and of every answer."""

OPTIONAL_COLUMNS = frozenset({"quote_volume", "trades"})
"""Those that not every exchange gives."""
