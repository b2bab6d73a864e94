"""Symbols and series: the names of what is stored."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from mdp_core.domain.intervals import Grid, Interval

# So long before the first candle known of a symbol lone ones may lie, where it was searched for:
# some lay up to 181 days before the first dense page.
DOUBTED_BEFORE = timedelta(days=200)

AGREED = 2
"""How many questions of different widths must tell a history start before it is beyond doubt."""

SEARCHED = "bisection"
"""The source of a history start that no exchange told."""


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

    `history_start` is the open time of the exchange's first candle, None while unknown. Before
    `believed_start` there is surely none: earlier than that where the first candle was searched.
    """

    id: int
    symbol: Symbol
    interval: Interval
    grid: Grid
    history_start: datetime | None
    believed_start: datetime | None = None
    history_source: str | None = None
    """How the history start is known."""
    history_witnesses: int = 0
    """How many questions of different widths told it."""

    @property
    def empty_before(self) -> datetime | None:
        """Return the time before which there is no candle, None while unknown."""
        return self.believed_start or self.history_start

    @property
    def exchange(self) -> str:
        """The exchange's name."""
        return self.symbol.exchange

    def __str__(self) -> str:
        """Return the four words that name it."""
        symbol = self.symbol
        return f"{symbol.exchange} {symbol.market_type} {symbol.name} {self.interval}"
