"""Queries of the candle service, and its answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from mdp_core.domain.candles import Candle, Candles
from mdp_core.domain.series import Series
from mdp_core.domain.windows import Window
from mdp_core.errors import MdpError

CacheState: TypeAlias = Literal["hit", "partial", "miss"]


@dataclass(frozen=True, slots=True)
class CandleQuery:
    """A request for candles, as it was asked: nothing aligned, no symbol resolved.

    `start` (inclusive) and `end` (exclusive) are aware UTC times. Without `start` the newest
    `limit` candles before `end` are meant; without `end`, now.
    """

    exchange: str
    market_type: str
    symbol: str
    interval: str
    start: datetime | None = None
    end: datetime | None = None
    limit: int | None = None
    settled: bool = False
    partial: bool = False
    pages: int | None = None
    """How many pages may be fetched at the most, if fewer than usual."""


@dataclass(frozen=True, slots=True)
class Latest:
    """One candle at the live edge, as known at `as_of` (the exchange's time)."""

    series: Series
    candle: Candle
    closed: bool
    settled: bool
    as_of: datetime


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
    epoch: int
    """How often the series had been repaired when its coverage was looked at."""
    timings: Mapping[str, float]
    """Milliseconds spent on each step so far."""

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
