"""Invented series: candles computed from their place alone, anywhere alike."""

import numpy as np

from mdp_core.domain.clock import from_ms
from mdp_core.domain.intervals import Grid, Int64s
from scripts.sandbox.candles import (
    MINUTE_MS,
    QUOTE_DECIMALS,
    Columns,
    Flags,
    Floats,
    PublishedSeries,
    TimeSpan,
)
from scripts.sandbox.markets import (
    SandboxMarket,
    fractions,
    hashes,
    levels_at,
    lots_between,
    seed_of,
    with_daily_ranges,
)

_LONGEST_QUIET_RUN = 16
_RESTLESSNESS = 0.0004  # part of the price that a minute's range may exceed its body by


class InventedSeries(PublishedSeries):
    """Candles computed from the slot number, vectorised.

    At any place of the series alike.
    """

    def __init__(self, market: SandboxMarket, interval: str, grid: Grid) -> None:
        """Make the series of a market.

        Intervals differ in ranges and volumes, not in prices.
        """
        super().__init__(grid, market.decimals)
        self._market = market
        self._salt = seed_of(str(market.seed), interval)
        self._born = grid.index(from_ms(market.born_ms))

    def newest(self, count: int, now_ms: int) -> int:
        """Tell when the oldest of the newest `count` slots opens; absent ones count."""
        last = self._slots(TimeSpan(0, now_ms + 1), now_ms).stop - 1
        return int(self.grid.times(last - count + 1, last - count + 2)[0])

    def _first(self, window: TimeSpan, limit: int, now_ms: int) -> Columns:
        slots = self._slots(window, now_ms)
        stop = min(slots.start + limit, slots.stop)
        parts = [self._rows(slots.start, stop, now_ms)]
        missing = limit - len(parts[0])
        while missing > 0 and stop < slots.stop:
            start, stop = stop, min(stop + missing, slots.stop)
            parts.append(self._rows(start, stop, now_ms))
            missing -= len(parts[-1])
        return Columns.join(parts)

    def _last(self, window: TimeSpan, limit: int, now_ms: int) -> Columns:
        slots = self._slots(window, now_ms)
        start = max(slots.stop - limit, slots.start)
        parts = [self._rows(start, slots.stop, now_ms)]
        missing = limit - len(parts[0])
        while missing > 0 and slots.start < start:
            start, stop = max(start - missing, slots.start), start
            parts.append(self._rows(start, stop, now_ms))
            missing -= len(parts[-1])
        return Columns.join(parts[::-1])

    def _slots(self, window: TimeSpan, now_ms: int) -> range:
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
        levels = levels_at(market, edges)
        opens = _last_closes(levels, traded)[reach:] if reach else levels[:-1]
        edges, traded, levels = edges[reach:], traded[reach:], levels[reach:]
        luck = fractions(hashes(self._salt, np.arange(start, stop)))
        rows = self._fill(edges, traded, opens, np.where(traded, levels[1:], opens), luck)
        return self._published(rows, edges[1:], traded, now_ms)

    def _traded(self, first: int, edges: Int64s) -> Flags:
        """Tell which of the slots from `first` on have trades."""
        if self._market.quiet == 0.0:
            return np.ones(len(edges) - 1, dtype=np.bool_)
        slots = np.arange(first, first + len(edges) - 1)
        luck = fractions(hashes(~self._salt, slots))[0]
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
        bodies = np.maximum(opens, ends), np.minimum(opens, ends)
        highs, lows = self._ranges(edges, traded, *bodies, luck)
        active = traded & (edges[1:] > self._market.traded_ms)
        volume = np.where(active, lots_between(self._market, edges), 0) / lot
        return Columns(
            edges[:-1],
            opens / tick,
            highs / tick,
            lows / tick,
            ends / tick,
            volume,
            np.round(volume * (opens + ends) / (2 * tick), QUOTE_DECIMALS),
            np.where(active, 1 + minutes * 40 * luck[2], 0).astype(np.int64),
        )

    def _ranges(
        self, edges: Int64s, traded: Flags, highs: Floats, lows: Floats, luck: Floats
    ) -> tuple[Floats, Floats]:
        """Widen what candles open and end with; candles without trades stay flat."""
        spread = highs * np.sqrt(np.diff(edges) / MINUTE_MS) * _RESTLESSNESS
        upper, lower = np.rint(spread * luck[0] ** 2), np.rint(spread * luck[1] ** 2)
        highest, lowest = with_daily_ranges(self._market, edges, highs + upper, lows - lower)
        return np.where(traded, highest, highs), np.where(traded, lowest, lows)

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


def _last_closes(levels: Floats, traded: Flags) -> Floats:
    """Give for each slot the level at which the last traded slot before it ended.

    The first ones, with none before them, are of no use.
    """
    ends = np.where(traded, np.arange(1, len(levels)), 0)
    return levels[np.concatenate([[0], np.maximum.accumulate(ends)[:-1]])]
