"""Markets of invented symbols.

Prices and volumes as pure functions of symbol and time.

Every interval shows the same market. Prices are one path, sampled where candles open; a day's
range is known without its minutes, and is reached in one minute of it; the volume of a candle is
the difference of a running total. So the candles of a day add up to the day's candle, at whatever
interval, and each is computed without the others. (Not where minutes without trades are left out,
or the exchange was down.)
"""

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mdp_core.domain.intervals import Int64s
from scripts.sandbox.candles import (
    DISTANT_FUTURE_MS,
    MINUTE_MS,
    QUOTE_DECIMALS,
    Columns,
    Decimals,
    Floats,
    TimeSpan,
)

Hashes: TypeAlias = NDArray[np.uint64]

_HOUR_MS = 60 * MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_TAKERS = 0x7A4E25  # any number of its own
_NOTIONAL_A_MINUTE = 30_000
_FEWEST_LOTS, _MOST_LOTS = 50, 500_000_000_000  # a day's volume has at most 15 digits
_BLOCK_DAYS = 32
_SWINGS = ((1, 0.3), (90, 0.3), (2880, 0.3))  # minutes, and part of the usual volume


@dataclass(frozen=True, slots=True)
class SandboxMarket:
    """Character of an invented symbol; times in epoch milliseconds.

    Attributes:
        born_ms: When its first candle's slot is open.
        traded_ms: When trading begins: rows that close before have moving prices and no volume.
        dies_ms: No candle opens from here on.
        hole: Window in which the exchange was down: no candle opens there.
        quiet: Probability that a minute has no trades.
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
    hole: TimeSpan | None = None
    quiet: float = 0.0
    publishes_quiet: bool = True
    late_ms: int = 0


def seed_of(*names: str) -> int:
    """Give 64 bits that depend on nothing but the names."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def price_at(market: SandboxMarket, time_ms: int) -> float:
    """Give the price of an invented market at a time."""
    ticks = levels_at(market, np.array([time_ms]))
    return float(ticks[0] / 10.0**market.decimals.price)


def taker_share(rows: Columns, decimals: Decimals) -> tuple[Floats, Floats]:
    """Give the part of volume and quote volume that takers bought.

    A third to two thirds.
    """
    share = (1 + fractions(hashes(_TAKERS, rows.time))[0]) / 3
    scale = 10.0**decimals.size
    volume: Floats = np.floor(rows.volume * share * scale) / scale
    bought: Floats = volume / np.where(rows.volume > 0, rows.volume, 1.0)
    return volume, np.round(rows.quote * bought, QUOTE_DECIMALS)


def levels_at(market: SandboxMarket, times: Int64s) -> Floats:
    """Give the price at each time, in ticks.

    Slow waves, a fast one and a little noise.
    """
    waves = _waves(market, times, slice(None))
    noise = (fractions(hashes(market.seed, times // MINUTE_MS))[0] - 0.5) * _NOISE
    return np.maximum(np.rint(_usual_ticks(market) * (1.0 + waves + noise)), 2.0)


def with_daily_ranges(
    market: SandboxMarket, edges: Int64s, highs: Floats, lows: Floats
) -> tuple[Floats, Floats]:
    """Fit the ranges of the candles between `edges` (ms) into those of their days.

    In ticks.

    The candle that holds the minute of a day's high or low reaches it, the others stay inside. A
    candle of several days has the widest of their ranges.
    """
    if len(edges) < 2:  # noqa: PLR2004 - no candle has one edge
        return highs, lows
    first = int(edges[0]) // _DAY_MS
    days = _days_between(market, first, -(-int(edges[-1]) // _DAY_MS))
    opens, closes = edges[:-1], edges[1:]
    day = opens // _DAY_MS - first
    if int(closes[0] - opens[0]) > _DAY_MS:
        return np.maximum.reduceat(days.high, day), np.minimum.reduceat(days.low, day)
    peaks, troughs = days.high_ms[day], days.low_ms[day]
    top, bottom = days.high[day], days.low[day]
    return (
        np.where((opens <= peaks) & (peaks < closes), top, np.minimum(highs, top)),
        np.where((opens <= troughs) & (troughs < closes), bottom, np.maximum(lows, bottom)),
    )


def lots_between(market: SandboxMarket, edges: Int64s) -> Int64s:
    """Count the lots traded between times (ms, whole minutes), some in each minute.

    The running total is a straight line and, on top, for minutes, hours and days, lines between
    random heights; together they never fall.
    """
    usual = 10.0**market.decimals.size * _NOTIONAL_A_MINUTE / market.price
    rate = int(min(max(usual, _FEWEST_LOTS), _MOST_LOTS))
    minutes = edges // MINUTE_MS
    total = rate * minutes
    for span, part in _SWINGS:
        total += (rate * part * span * _wander(market.seed + span, minutes, span)).astype(np.int64)
    return np.diff(total)


def _wander(seed: int, minutes: Int64s, span: int) -> Floats:
    """Give heights in [0, 1): one at random every `span` minutes, lines in between."""
    places = minutes // span
    before = fraction(hashes(seed, places))
    if span == 1:
        return before
    after = fraction(hashes(seed, places + 1))
    return before + (after - before) * ((minutes - places * span) / span)


class _Days(NamedTuple):
    """The ranges of consecutive days, in ticks.

    And the minutes in which they are reached.
    """

    high: Floats
    low: Floats
    high_ms: Int64s
    low_ms: Int64s


def _days_between(market: SandboxMarket, first: int, stop: int) -> _Days:
    """Give the days from `first` on, at least up to `stop` (exclusive)."""
    begin = first // _BLOCK_DAYS
    blocks = [_days(market, block) for block in range(begin, (stop - 1) // _BLOCK_DAYS + 1)]
    past = slice(first - begin * _BLOCK_DAYS, stop - begin * _BLOCK_DAYS)
    return _Days(*(np.concatenate(columns)[past] for columns in zip(*blocks, strict=True)))


@lru_cache(maxsize=4096)
def _days(market: SandboxMarket, block: int) -> _Days:
    """Bound the path on each day: its slow part each hour, and all that can be on top."""
    first, stop = block * _BLOCK_DAYS, (block + 1) * _BLOCK_DAYS
    hours = np.arange(first * 24, stop * 24 + 1) * _HOUR_MS
    slow = sliding_window_view(_waves(market, hours, _SLOW), 25)[::24]
    ticks, begins = _usual_ticks(market), np.arange(first, stop) * _DAY_MS
    last = _DAY_MS - MINUTE_MS
    return _Days(
        np.rint(ticks * (1.0 + slow.max(axis=1) + _BEYOND_SLOW)) + 1.0,
        np.maximum(np.rint(ticks * (1.0 + slow.min(axis=1) - _BEYOND_SLOW)) - 1.0, 1.0),
        begins + np.minimum(slow.argmax(axis=1) * _HOUR_MS, last),
        begins + np.minimum(slow.argmin(axis=1) * _HOUR_MS, last),
    )


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_PERIODS_DAYS = np.array([[700.0], [45.0], [2.0], [0.1]])
_FREQUENCIES = 2 * np.pi / _DAY_MS / _PERIODS_DAYS
_AMPLITUDES = np.array([[0.3], [0.1], [0.02], [0.003]])
_SLOW = slice(0, 3)
_NOISE = 0.0008
# The fast wave and the noise, and how far the slow ones can rise in half an hour.
_BEYOND_SLOW = float(0.003 + _NOISE / 2 + (_AMPLITUDES * _FREQUENCIES)[_SLOW].sum() * _HOUR_MS / 2)


def _waves(market: SandboxMarket, times: Int64s, which: slice) -> Floats:
    angles = times * _FREQUENCIES[which] + _phases(market.seed)[which]
    return (np.sin(angles) * _AMPLITUDES[which]).sum(axis=0)


def _usual_ticks(market: SandboxMarket) -> float:
    return market.price * 10.0**market.decimals.price


@cache
def _phases(seed: int) -> Floats:
    return 2 * np.pi * fractions(hashes(seed, np.arange(len(_FREQUENCIES))))[1][:, None]


def hashes(seed: int, numbers: Int64s) -> Hashes:
    """Give 64 pseudo-random bits per number: splitmix64, seeded."""
    mask = 0xFFFFFFFFFFFFFFFF
    bits = (numbers.astype(np.uint64) + np.uint64(seed & mask)) * _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def fraction(bits: Hashes) -> Floats:
    """Give one number in [0, 1) from the highest bits."""
    return (bits >> np.uint64(48)) / 65_536.0


def fractions(bits: Hashes) -> Floats:
    """Give four rows of numbers in [0, 1), one from each quarter of the bits."""
    return bits.view(np.uint16).reshape(-1, 4).T / 65_536.0
