"""The candles of a day add up to the day's candle, at whatever interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdp_core.domain.clock import from_ms
from mdp_core.domain.intervals import Interval, epoch_grid
from scripts.sandbox.candles import Columns, Decimals, TimeSpan
from scripts.sandbox.invented import InventedSeries
from scripts.sandbox.markets import SandboxMarket

DAY = 86_400_000
BORN = 1_577_836_800_000  # 2020-01-01
NOW = BORN + 2_000 * DAY
SHORT = [entry for entry in Interval if entry.value[-1] in "mh"]
LONG = [Interval.THREE_DAYS, Interval.ONE_WEEK, Interval.ONE_MONTH]

markets = st.builds(
    SandboxMarket,
    seed=st.integers(0, 2**64 - 1),
    price=st.sampled_from([0.0004, 0.02, 1.7, 250.0, 60_000.0]),
    decimals=st.sampled_from([Decimals(6, 0), Decimals(4, 3), Decimals(5, 8)]),
    born_ms=st.just(BORN),
)


def rows(market: SandboxMarket, interval: Interval, start: int, end: int) -> Columns:
    grid = epoch_grid(interval)
    return InventedSeries(market, interval, grid).first(TimeSpan(start, end), 100_000, NOW)


@settings(deadline=None, max_examples=40)
@given(market=markets, day=st.integers(1, 1_990), interval=st.sampled_from(SHORT))
def test_candles_of_a_day_make_the_day_s_candle(
    market: SandboxMarket, day: int, interval: Interval
) -> None:
    """First open, highest high, lowest low, last close, all volume, to the last lot."""
    start = BORN + day * DAY
    parts = rows(market, interval, start, start + DAY)
    whole = rows(market, Interval.ONE_DAY, start, start + DAY)

    assert len(whole) == 1
    assert (parts.high >= np.maximum(parts.open, parts.close)).all()
    assert (parts.low <= np.minimum(parts.open, parts.close)).all()
    assert (parts.open[0], parts.close[-1]) == (whole.open[0], whole.close[0])
    assert (parts.high.max(), parts.low.min()) == (whole.high[0], whole.low[0])
    lots = np.rint(parts.volume * 10.0**market.decimals.size).astype(np.int64).sum()
    assert lots == np.rint(whole.volume[0] * 10.0**market.decimals.size).astype(np.int64)


@settings(deadline=None, max_examples=20)
@given(market=markets, interval=st.sampled_from(LONG))
def test_longer_candles_have_the_range_of_their_days(
    market: SandboxMarket, interval: Interval
) -> None:
    """Nothing outside of it, and all of it."""
    grid = epoch_grid(interval)
    first = grid.index(from_ms(BORN))
    start, end = (int(at) for at in grid.times(first + 2, first + 4))
    whole = rows(market, interval, start, end)
    days = rows(market, Interval.ONE_DAY, start, end)

    assert len(whole) == 1
    assert (days.high.max(), days.low.min()) == (whole.high[0], whole.low[0])


@pytest.mark.parametrize("interval", [Interval.ONE_MINUTE, Interval.ONE_HOUR, Interval.ONE_DAY])
def test_volumes_vary(interval: Interval) -> None:
    """No two neighbours are alike, and the greatest is a multiple of the least."""
    market = SandboxMarket(seed=7, price=250.0, decimals=Decimals(2, 3), born_ms=BORN)
    volume = rows(market, interval, BORN + DAY, NOW).volume[:3_000]

    assert (np.diff(volume) != 0).mean() > 0.99
    assert volume.max() > 1.3 * volume.min() > 0
