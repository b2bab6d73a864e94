"""The candles that the sandbox publishes: invented ones, and ones replayed from files.

Both kinds answer the same two questions, the first rows of a window and the last ones, so the
exchanges' wire formats need not know which they print. Invented candles are a pure function of
(exchange, symbol, interval, time); nothing here depends on the process or reads a clock.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdp_core.domain.clock import from_ms
from mdp_core.domain.intervals import Grid, Int64s

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Hashes: TypeAlias = NDArray[np.uint64]

DISTANT_FUTURE_MS = 4_133_404_800_000  # 2100-12-25, Binance's delivery date of a live perpetual
MINUTE_MS = 60_000
_LONGER_THAN_ANY_MS = 32 * 1440 * MINUTE_MS
_QUOTE_DECIMALS = 5
_LONGEST_QUIET_RUN = 16
_TAKERS = 0x7A4E25  # any number of its own


@dataclass(frozen=True, slots=True)
class Window:
    """Open times from `start_ms` (inclusive) to `end_ms` (exclusive), epoch milliseconds, UTC."""

    start_ms: int
    end_ms: int

    def clipped(self) -> "Window":
        """Give the part that a calendar can express; exchanges take any integer."""
        return Window(*(min(max(ms, 0), DISTANT_FUTURE_MS) for ms in (self.start_ms, self.end_ms)))


@dataclass(frozen=True, slots=True)
class Columns:
    """Candles as columns of equal length; `time` is the open time in epoch milliseconds."""

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
    """How many decimals the prices and the volumes of a symbol have."""

    price: int
    size: int


@dataclass(frozen=True, slots=True)
class Market:
    """What an invented symbol is like; times in epoch milliseconds.

    Attributes:
        born_ms: When its first candle's slot is open.
        traded_ms: When trading begins: rows that close before have moving prices and no volume.
        dies_ms: No candle opens from here on.
        hole: Window in which the exchange was down: no candle opens there.
        quiet: Probability that nobody trades in a minute.
        publishes_quiet: Whether a slot without trades gets a flat row, or none.
        late_ms: How long after its close a row may be missing: where flat rows are published
            only these, else every row.
    """

    seed: int
    price: float
    decimals: Decimals
    born_ms: int
    traded_ms: int = 0
    dies_ms: int = DISTANT_FUTURE_MS
    hole: Window | None = None
    quiet: float = 0.0
    publishes_quiet: bool = True
    late_ms: int = 0


def seed_of(*names: str) -> int:
    """Give 64 bits that depend on nothing but the names."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def closes_ms(grid: Grid, times: Int64s) -> Int64s:
    """Give when the candles that open at `times` (any order) close: the next slot's open time."""
    if len(times) == 0:
        return times
    slots = grid.indices(times)
    first = int(slots.min())
    return grid.times(first + 1, int(slots.max()) + 2)[slots - first]


def price_at(market: Market, time_ms: int) -> float:
    """Give the price of an invented market at a time."""
    ticks = _levels(market, np.array([time_ms]))
    return float(ticks[0] / 10.0**market.decimals.price)


def taker_share(rows: Columns, decimals: Decimals) -> tuple[Floats, Floats]:
    """Give the part of volume and quote volume that takers bought: a third to two thirds."""
    share = (1 + _fractions(_hashes(_TAKERS, rows.time))[0]) / 3
    scale = 10.0**decimals.size
    volume: Floats = np.floor(rows.volume * share * scale) / scale
    bought: Floats = volume / np.where(rows.volume > 0, rows.volume, 1.0)
    return volume, np.round(rows.quote * bought, _QUOTE_DECIMALS)


class Series(ABC):
    """The candles of one symbol and interval, as the exchange shows them at a given moment."""

    def __init__(self, grid: Grid, decimals: Decimals) -> None:
        """Make a series whose candles open on `grid` and whose numbers have so many decimals."""
        self.grid = grid
        self.decimals = decimals

    def first(self, window: Window, limit: int, now_ms: int) -> Columns:
        """Give the first rows that open in the window, ascending, the forming one included."""
        return self._as_seen(self._first(window.clipped(), limit, now_ms), now_ms)

    def last(self, window: Window, limit: int, now_ms: int) -> Columns:
        """Give the last rows that open in the window, ascending, the forming one included."""
        return self._as_seen(self._last(window.clipped(), limit, now_ms), now_ms)

    @abstractmethod
    def newest(self, count: int, now_ms: int) -> int:
        """Tell when the oldest of the newest `count` candles opens (epoch ms)."""

    @abstractmethod
    def _first(self, window: Window, limit: int, now_ms: int) -> Columns: ...

    @abstractmethod
    def _last(self, window: Window, limit: int, now_ms: int) -> Columns: ...

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
        quote=np.where(traded, np.round(final.quote * elapsed, _QUOTE_DECIMALS), 0.0),
        trades=np.where(traded, np.maximum(1, final.trades * elapsed), 0).astype(np.int64),
    )


class InventedSeries(Series):
    """Candles computed from the slot number, vectorised, at any place of the series alike."""

    def __init__(self, market: Market, interval: str, grid: Grid) -> None:
        """Make the series of a market; intervals differ in ranges and volumes, not in prices."""
        super().__init__(grid, market.decimals)
        self._market = market
        self._salt = seed_of(str(market.seed), interval)
        self._born = grid.index(from_ms(market.born_ms))

    def newest(self, count: int, now_ms: int) -> int:
        """Tell when the oldest of the newest `count` slots opens; absent ones count."""
        last = self._slots(Window(0, now_ms + 1), now_ms).stop - 1
        return int(self.grid.times(last - count + 1, last - count + 2)[0])

    def _first(self, window: Window, limit: int, now_ms: int) -> Columns:
        slots = self._slots(window, now_ms)
        stop = min(slots.start + limit, slots.stop)
        parts = [self._rows(slots.start, stop, now_ms)]
        missing = limit - len(parts[0])
        while missing > 0 and stop < slots.stop:
            start, stop = stop, min(stop + missing, slots.stop)
            parts.append(self._rows(start, stop, now_ms))
            missing -= len(parts[-1])
        return Columns.join(parts)

    def _last(self, window: Window, limit: int, now_ms: int) -> Columns:
        slots = self._slots(window, now_ms)
        start = max(slots.stop - limit, slots.start)
        parts = [self._rows(start, slots.stop, now_ms)]
        missing = limit - len(parts[0])
        while missing > 0 and slots.start < start:
            start, stop = max(start - missing, slots.start), start
            parts.append(self._rows(start, stop, now_ms))
            missing -= len(parts[-1])
        return Columns.join(parts[::-1])

    def _slots(self, window: Window, now_ms: int) -> range:
        """Number the slots that open in the window, in the market's life, and have opened."""
        end = min(window.end_ms, self._market.dies_ms, now_ms + 1)
        bounds = np.array([window.start_ms - 1, end - 1], dtype=np.int64)
        start, stop = (int(slot) + 1 for slot in self.grid.indices(bounds))
        start = max(start, self._born)
        return range(start, max(start, stop))

    def _rows(self, start: int, stop: int, now_ms: int) -> Columns:
        """Make the published rows of the slots `start` to `stop` (exclusive)."""
        market = self._market
        reach = _LONGEST_QUIET_RUN if market.quiet and market.publishes_quiet else 0
        edges = self.grid.times(start - reach, stop + 1)
        traded = self._traded(start - reach, edges)
        levels = _levels(market, edges)
        opens = _last_closes(levels, traded)[reach:] if reach else levels[:-1]
        edges, traded, levels = edges[reach:], traded[reach:], levels[reach:]
        luck = _fractions(_hashes(self._salt, np.arange(start, stop)))
        rows = self._fill(edges, traded, opens, np.where(traded, levels[1:], opens), luck)
        return self._published(rows, edges[1:], traded, now_ms)

    def _traded(self, first: int, edges: Int64s) -> Flags:
        """Tell in which of the slots from `first` on anybody trades."""
        if self._market.quiet == 0.0:
            return np.ones(len(edges) - 1, dtype=np.bool_)
        slots = np.arange(first, first + len(edges) - 1)
        luck = _fractions(_hashes(~self._salt, slots))[0]
        traded = luck >= self._market.quiet ** (np.diff(edges) / MINUTE_MS)
        if self._market.publishes_quiet:
            traded |= slots % _LONGEST_QUIET_RUN == 0
        return traded

    def _fill(
        self, edges: Int64s, traded: Flags, opens: Floats, ends: Floats, luck: Floats
    ) -> Columns:
        """Make whole candles out of what they open and end with, in ticks."""
        minutes = np.diff(edges) / MINUTE_MS
        tick, lot = 10.0**self._market.decimals.price, 10.0**self._market.decimals.size
        spread = opens * np.minimum(np.sqrt(minutes) * 0.001, 0.08) * traded
        upper, lower = np.rint(spread * luck[0] ** 2), np.rint(spread * luck[1] ** 2)
        lots = np.rint(lot * tick / opens * 50_000 * minutes * (0.1 + luck[2]))
        active = traded & (edges[1:] > self._market.traded_ms)
        volume = np.where(active, np.maximum(1.0, lots), 0.0) / lot
        return Columns(
            edges[:-1],
            opens / tick,
            (np.maximum(opens, ends) + upper) / tick,
            (np.minimum(opens, ends) - lower) / tick,
            ends / tick,
            volume,
            np.round(volume * (opens + ends) / (2 * tick), _QUOTE_DECIMALS),
            np.where(active, 1 + minutes * 40 * luck[3], 0).astype(np.int64),
        )

    def _published(self, rows: Columns, closes: Int64s, traded: Flags, now_ms: int) -> Columns:
        """Leave out what the exchange has not, or not yet, published."""
        market = self._market
        kept = np.ones(len(rows), dtype=np.bool_)
        if not market.publishes_quiet:
            kept &= traded
        if market.late_ms:
            recent = closes > now_ms - market.late_ms
            kept &= ~(recent & ~traded) if market.publishes_quiet else ~recent
        if market.hole:
            kept &= (rows.time < market.hole.start_ms) | (rows.time >= market.hole.end_ms)
        return rows if kept.all() else rows.take(kept)


class ReplayedSeries(Series):
    """Rows as a file holds them, each from its open time on, and nothing else."""

    def __init__(self, rows: Columns, decimals: Decimals, grid: Grid) -> None:
        """Make a series of rows that are ascending and unique in time."""
        super().__init__(grid, decimals)
        self._stored = rows

    def newest(self, count: int, now_ms: int) -> int:
        """Tell when the oldest of the newest `count` rows opens."""
        visible = int(np.searchsorted(self._stored.time, now_ms + 1))
        return int(self._stored.time[max(visible - count, 0)])

    def _first(self, window: Window, limit: int, now_ms: int) -> Columns:
        rows = self._places(window, now_ms)
        return self._stored.take(slice(rows.start, min(rows.stop, rows.start + limit)))

    def _last(self, window: Window, limit: int, now_ms: int) -> Columns:
        rows = self._places(window, now_ms)
        return self._stored.take(slice(max(rows.start, rows.stop - limit), rows.stop))

    def _places(self, window: Window, now_ms: int) -> range:
        bounds = [window.start_ms, min(window.end_ms, now_ms + 1)]
        start, stop = (int(place) for place in np.searchsorted(self._stored.time, bounds))
        return range(start, max(start, stop))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_FREQUENCIES = 2 * np.pi / (1440 * MINUTE_MS) / np.array([[700.0], [45.0], [2.0], [0.1]])
_AMPLITUDES = np.array([[0.3], [0.1], [0.02], [0.003]])


def _hashes(seed: int, numbers: Int64s) -> Hashes:
    """Give 64 pseudo-random bits per number: splitmix64, seeded."""
    mask = 0xFFFFFFFFFFFFFFFF
    bits = (numbers.astype(np.uint64) + np.uint64(seed & mask)) * _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def _fractions(bits: Hashes) -> Floats:
    """Give four rows of numbers in [0, 1), one from each quarter of the bits."""
    return bits.view(np.uint16).reshape(-1, 4).T / 65_536.0


def _last_closes(levels: Floats, traded: Flags) -> Floats:
    """Give for each slot the level at which the last traded slot before it ended.

    The first ones, with none before them, are of no use.
    """
    ends = np.where(traded, np.arange(1, len(levels)), 0)
    return levels[np.concatenate([[0], np.maximum.accumulate(ends)[:-1]])]


@cache
def _phases(seed: int) -> Floats:
    return 2 * np.pi * _fractions(_hashes(seed, np.arange(len(_FREQUENCIES))))[1][:, None]


def _levels(market: Market, times: Int64s) -> Floats:
    """Give the price at each time, in ticks: slow waves and a little noise."""
    waves = (np.sin(times * _FREQUENCIES + _phases(market.seed)) * _AMPLITUDES).sum(axis=0)
    noise = (_fractions(_hashes(market.seed, times // MINUTE_MS))[0] - 0.5) * 0.0008
    scaled = market.price * 10.0**market.decimals.price
    return np.maximum(np.rint(scaled * (1.0 + waves + noise)), 2.0)
