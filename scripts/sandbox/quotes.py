"""Quotes of the moment.

The last price, the last day, and an order book around the price.

They follow from the candles, so they say the same as the forming one does.
"""

from dataclasses import dataclass
from typing import NamedTuple

from mdp_core.domain.intervals import Interval
from scripts.sandbox.candles import Columns, Decimals, TimeSpan
from scripts.sandbox.exchange import SeriesBook

_HOURS_OF_A_DAY = 24
_HOUR_MS = 3_600_000


class Level(NamedTuple):
    """One price of an order book, as text.

    With the size offered there and how many orders.
    """

    price: str
    size: str
    orders: int


@dataclass(frozen=True, slots=True)
class Quote:
    """A symbol's price at one moment.

    `day` holds the last 24 hourly candles, at least one.
    """

    price: float
    decimals: Decimals
    day: Columns

    @property
    def text(self) -> str:
        """Print the price with all of the symbol's decimals."""
        return f"{self.price:.{self.decimals.price}f}"

    def bids(self, depth: int) -> list[Level]:
        """Give the buyers' levels, best first, from the price down; fewer near zero."""
        ticks = round(self.price * 10**self.decimals.price)
        return [self._level(ticks - step, step) for step in range(min(depth, ticks - 1))]

    def asks(self, depth: int) -> list[Level]:
        """Give the sellers' levels, best first, from a tick above the price up."""
        ticks = round(self.price * 10**self.decimals.price)
        return [self._level(ticks + 1 + step, step) for step in range(depth)]

    def _level(self, ticks: int, step: int) -> Level:
        lots = 1 + step * 7 % 13
        return Level(
            f"{ticks / 10**self.decimals.price:.{self.decimals.price}f}",
            f"{lots / 10**self.decimals.size:.{self.decimals.size}f}",
            1 + step % 3,
        )


def quote_of(series: SeriesBook, symbol: str, now_ms: int) -> Quote | None:
    """Give the quote of a known symbol; None: it was not traded in the last day."""
    minutes, hours = series(symbol, Interval.ONE_MINUTE), series(symbol, Interval.ONE_HOUR)
    last_day = TimeSpan(now_ms - _HOURS_OF_A_DAY * _HOUR_MS, now_ms + 1)
    last = minutes.last(last_day, 1, now_ms)
    day = hours.last(last_day, _HOURS_OF_A_DAY, now_ms)
    if not (len(last) and len(day)):
        return None
    return Quote(float(last.close[0]), minutes.decimals, day)
