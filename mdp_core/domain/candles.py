"""Candles as columns of numpy arrays, the one type that travels the house."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import Int64s
from mdp_core.domain.windows import Window

Float64s: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


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
    taker_buy_volume: float | None = None
    taker_buy_quote_volume: float | None = None


def _not_given() -> Float64s:
    return _NOT_GIVEN


_NOT_GIVEN: Float64s = np.empty(0, np.float64)


@dataclass(frozen=True, slots=True)
class Candles:
    """Candles as columns of one length; `time`: the open in epoch ms (UTC).

    Columns that the exchange does not give are NaN (`OPTIONAL_COLUMNS`); the takers' may be left
    out by an adapter. Inside the house rows are ascending and unique by time; only what comes
    straight from an adapter may be otherwise.
    """

    time: Int64s
    open: Float64s
    high: Float64s
    low: Float64s
    close: Float64s
    volume: Float64s
    quote_volume: Float64s
    trades: Float64s
    taker_buy_volume: Float64s = field(default_factory=_not_given)
    taker_buy_quote_volume: Float64s = field(default_factory=_not_given)

    def __post_init__(self) -> None:
        """Make columns that were not given NaN."""
        for name in ("taker_buy_volume", "taker_buy_quote_volume"):
            if getattr(self, name) is _NOT_GIVEN:
                object.__setattr__(self, name, np.full(len(self.time), np.nan))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.time)

    def __getitem__(self, rows: slice | Bools | Int64s) -> Self:
        """Return rows by slice, mask or positions."""
        return type(self)(*(getattr(self, name)[rows] for name in COLUMNS))

    @classmethod
    def empty(cls) -> Self:
        """Return no candles."""
        nothing = np.empty(0, np.float64)
        return cls(np.empty(0, np.int64), *(nothing,) * (len(COLUMNS) - 1))

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Return candles one after another; their order is not changed."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in COLUMNS))

    def inside(self, window: Window) -> Self:
        """Return the rows that open in `window`, in their order."""
        if not len(self):
            return self
        return self[(self.time >= to_ms(window.start)) & (self.time < to_ms(window.end))]

    def row(self, position: int) -> Candle:
        """Return one row as a `Candle`."""
        numbers = {name: float(getattr(self, name)[position]) for name in COLUMNS[1:]}
        known = {name: None if np.isnan(value) else value for name, value in numbers.items()}
        if known["trades"] is not None:
            known["trades"] = int(known["trades"])
        return Candle(from_ms(int(self.time[position])), **known)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that an exchange sent for a slot (its open time) and that can't be right."""

    slot: datetime
    row: str
    reason: str


COLUMNS = tuple(field.name for field in fields(Candles))
"""The columns' names, in the order of the table, of binary COPY and of every answer."""

OPTIONAL_COLUMNS = COLUMNS[6:]
"""Those that not every exchange gives."""
