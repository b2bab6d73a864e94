"""The provisional cache: overlapping ranges, and stragglers."""

from datetime import UTC, datetime, timedelta

import numpy as np

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.series import Series, Symbol
from mdp_core.domain.windows import Window
from mdp_core.fill.provisional import ProvisionalCache

START = datetime(2024, 5, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SERIES = Series(
    1,
    Symbol("coinbase", "spot", "BTC-USD", "BTC-USD", "BTC", "USD", active=True),
    Interval.ONE_MINUTE,
    epoch_grid(Interval.ONE_MINUTE),
    None,
)


def _candles(count: int) -> Candles:
    times = np.array([to_ms(START + n * MINUTE) for n in range(count)], np.int64)
    ones = np.ones(count)
    return Candles(times, *[ones] * 5, quote_volume=ones, trades=ones)


def test_straggler_does_not_take_the_edge_back() -> None:
    """A candle that was served stays served: an older answer is not taken."""
    ranges = ProvisionalCache(10)
    ranges.keep(SERIES, 0, Window(START, START + 4 * MINUTE), _candles(4), at_edge=True)
    ranges.keep(SERIES, 0, Window(START, START + 3 * MINUTE), _candles(3), at_edge=True)
    (kept,) = ranges.fresh(SERIES, Window(START, START + 9 * MINUTE))

    assert kept.window.end == START + 4 * MINUTE
    assert len(kept.candles) == 4


def test_two_tails_of_one_window_are_two() -> None:
    """They are told apart without comparing columns, which have no one truth value."""
    ranges, window = ProvisionalCache(10), Window(START, START + 2 * MINUTE)
    ranges.keep(SERIES, 0, window, _candles(2), at_edge=True)
    (first,) = ranges.fresh(SERIES, window)
    ranges.keep(SERIES, 0, window, _candles(2), at_edge=True)
    (second,) = ranges.fresh(SERIES, window)

    assert first != second
