"""Queries of the candle service, and its answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from mdp_core.domain.candles import Candle, Candles
from mdp_core.domain.series import Series
from mdp_core.domain.versions import Versions
from mdp_core.domain.windows import Window
from mdp_core.errors import InvalidWindow, MdpError

CacheState: TypeAlias = Literal["hit", "partial", "miss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of a request for candles, as given: nothing is aligned.

    `start` (inclusive) and `end` (exclusive) are aware UTC times. Without `start` the newest
    `limit` candles before `end` are meant; without `end`, now.
    """

    start: datetime | None = None
    end: datetime | None = None
    limit: int | None = None
    settled: bool = False
    partial: bool = False
    pages: int | None = None
    """How many pages may be fetched at the most, if fewer than usual."""

    def __post_init__(self) -> None:
        """Refuse a start after the end.

        Raises:
            InvalidWindow: `start` lies after `end`.
        """
        if self.start is not None and self.end is not None and self.start > self.end:
            raise InvalidWindow(self.start, self.end)


@dataclass(frozen=True, slots=True)
class CandleQuery(Bounds):
    """A request for candles of the series that four words name."""

    exchange: str
    market_type: str
    symbol: str
    interval: str


@dataclass(frozen=True, slots=True)
class Latest:
    """One candle at the live edge, as known at `as_of` (the exchange's time)."""

    series: Series
    candle: Candle
    closed: bool
    settled: bool
    as_of: datetime
    unconfirmed: Sequence[Window] = ()
    """Closed slots after the candle that have none so far and will be asked for again."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A part of the window that could not be had, and why."""

    window: Window
    error: MdpError


@dataclass(frozen=True, slots=True)
class Continuation:
    """The bounds of the rest of the candles; `start` None: the newest ones."""

    start: datetime | None
    end: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for a window; its candles are read when they are sent.

    `window` is what the answer is complete for, but for `missing`. The candles before `stored.end`
    are in the store; `edge` holds those after it. From `settled_until` on candles may still change.
    """

    series: Series
    window: Window
    settled_until: datetime
    stored: Window
    edge: Candles
    missing: Sequence[Missing]
    next: Continuation | None
    cache: CacheState
    upstream_requests: int
    versions: Versions
    """The versions of its windows when its coverage was read."""
    timings: Mapping[str, float]
    """Milliseconds spent on each step so far."""
    unconfirmed: Sequence[Window] = ()
    """Covered slots of `window` without a candle that will be asked for again, ascending."""

    @property
    def unconfirmed_slots(self) -> int:
        """Count the slots of `unconfirmed`."""
        grid = self.series.grid
        return sum(grid.count(window.start, window.end) for window in self.unconfirmed)

    @property
    def version(self) -> int:
        """The version of the answered window."""
        return self.versions.of(self.window)

    @property
    def is_final(self) -> bool:
        """True if every candle of the window is settled and stored, or absent."""
        return self.settled_until >= self.window.end and not self.missing and not len(self.edge)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request."""

    rows: int
    pages: int
    deadline_seconds: float
