"""Symbols and series: the names of what is stored."""

from dataclasses import dataclass
from datetime import datetime

from mdp_core.domain.intervals import Grid, Interval


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol of an exchange, under our name (`BASE-QUOTE`) and its own."""

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

    `history_start` is the open time of the exchange's first candle, None while unknown.
    """

    id: int
    symbol: Symbol
    interval: Interval
    grid: Grid
    history_start: datetime | None

    @property
    def exchange(self) -> str:
        """The exchange's name."""
        return self.symbol.exchange

    def __str__(self) -> str:
        """Return the four words that name it."""
        symbol = self.symbol
        return f"{symbol.exchange} {symbol.market_type} {symbol.name} {self.interval}"
