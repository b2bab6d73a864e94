"""The sandbox's candles: publishable by an exchange, the same at every request."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdp_core.domain.intervals import FixedGrid, Grid, Interval, epoch_grid
from scripts.sandbox.candles import (
    DISTANT_FUTURE_MS,
    Columns,
    Decimals,
    ReplayedSeries,
    TimeSpan,
    closes_ms,
)
from scripts.sandbox.invented import InventedSeries
from scripts.sandbox.markets import SandboxMarket

MINUTE = 60_000
BORN = 1_577_872_080_000  # 2020-01-01 09:48
NOW = 1_767_225_600_000 + 30_000  # 2026-01-01 00:00:30
MARKET = SandboxMarket(seed=7, price=250.0, decimals=Decimals(2, 3), born_ms=BORN)
EVER = TimeSpan(0, DISTANT_FUTURE_MS)


def series(
    market: SandboxMarket = MARKET, interval: Interval = Interval.ONE_MINUTE
) -> InventedSeries:
    return InventedSeries(market, interval, epoch_grid(interval))


def same(left: Columns, right: Columns) -> bool:
    return all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in Columns.__slots__
    )


def test_series_is_pinned_to_its_name_and_time() -> None:
    """A candle depends on nothing but its series and time: this one stays what it was."""
    row = series().first(TimeSpan(BORN, DISTANT_FUTURE_MS), 1, NOW)

    values = (row.time, row.open, row.high, row.low, row.close, row.volume, row.quote, row.trades)
    assert [column[0].item() for column in values] == [
        BORN,
        307.91,
        308.1,
        307.91,
        307.99,
        119.575,
        36823.12125,
        32,
    ]


@settings(deadline=None)
@given(
    offset=st.integers(-100, 5_000),
    length=st.integers(1, 400),
    cut=st.integers(0, 400),
)
def test_window_cut_in_two_gives_the_same_rows(offset: int, length: int, cut: int) -> None:
    """However a window is cut into requests, the rows are the same."""
    market = replace(MARKET, quiet=0.4, hole=TimeSpan(BORN + 90 * MINUTE, BORN + 120 * MINUTE))
    start = BORN + offset * MINUTE
    middle, end = start + min(cut, length) * MINUTE, start + length * MINUTE
    whole = series(market).first(TimeSpan(start, end), 1_000, NOW)
    parts = [
        series(market).first(TimeSpan(start, middle), 1_000, NOW),
        series(market).first(TimeSpan(middle, end), 1_000, NOW),
    ]

    assert same(whole, Columns.join(parts))


@settings(deadline=None)
@given(limit=st.integers(1, 300), quiet=st.sampled_from([0.0, 0.5, 0.9]))
def test_first_and_last_rows_are_full_pages_of_the_same_series(limit: int, quiet: float) -> None:
    """Absent slots never shorten a page that has more rows to give, from either side."""
    market = replace(MARKET, quiet=quiet, publishes_quiet=False)
    window = TimeSpan(BORN, BORN + 10_000 * MINUTE)
    whole = series(market).first(window, 10_000, NOW)

    assert same(series(market).first(window, limit, NOW), whole.take(slice(0, limit)))
    assert same(series(market).last(window, limit, NOW), whole.take(slice(-limit, None)))


@pytest.mark.parametrize("interval", list(Interval))
def test_rows_are_sound_at_every_interval(interval: Interval) -> None:
    """Rows lie on the grid, low <= open, close <= high, open at the last close."""
    grid = epoch_grid(interval)
    rows = series(interval=interval).last(EVER, 300, NOW)

    assert np.array_equal(grid.times(*_range(grid, rows)), rows.time)
    assert (rows.low <= np.minimum(rows.open, rows.close)).all()
    assert (rows.high >= np.maximum(rows.open, rows.close)).all()
    assert (rows.low > 0).all()
    assert np.array_equal(rows.open[1:-1], rows.close[:-2])
    assert ((rows.volume > 0) & (rows.trades > 0))[:-1].all()


def _range(grid: Grid, rows: Columns) -> tuple[int, int]:
    first, last = grid.indices(rows.time[[0, -1]])
    return int(first), int(last) + 1


def test_numbers_are_short_decimals() -> None:
    """Prices and volumes have the market's decimals and no float noise behind them."""
    rows = series().last(EVER, 5_000, NOW)

    for column, decimals in ((rows.open, 2), (rows.high, 2), (rows.low, 2), (rows.volume, 3)):
        assert max(len(repr(float(x)).partition(".")[2]) for x in column) <= decimals


def test_series_begins_in_the_slot_of_its_birth_and_ends_before_its_death() -> None:
    """The first candle is the one that holds the birth; none opens from the death on."""
    dying = replace(MARKET, dies_ms=BORN + 100 * MINUTE)
    daily = series(interval=Interval.ONE_DAY).first(EVER, 1, NOW)
    minutes = series(dying).last(EVER, 5, NOW)

    assert daily.time.tolist() == [BORN - BORN % 86_400_000]
    assert int(minutes.time[-1]) == BORN + 99 * MINUTE
    assert len(series(dying).first(TimeSpan(dying.dies_ms, DISTANT_FUTURE_MS), 5, NOW)) == 0


def test_forming_candle_grows_into_the_final_one() -> None:
    """While it forms, range and volume only grow, never beyond the final candle's."""
    opens = NOW - NOW % 3_600_000
    hourly = series(interval=Interval.ONE_HOUR)
    final = hourly.last(TimeSpan(opens, opens + 1), 1, opens + 3_600_000)
    seen = [
        hourly.last(TimeSpan(opens, opens + 1), 1, opens + second * 1_000)
        for second in range(0, 3_600, 60)
    ]

    rows = Columns.join([*seen, final])
    assert (rows.open == final.open).all()
    for growing in (rows.high, -rows.low, rows.volume, rows.trades):
        assert (np.diff(growing) >= 0).all()
    assert (rows.low <= rows.close).all()
    assert (rows.close <= rows.high).all()
    assert ((rows.trades == 0) == (rows.volume == 0)).all()
    assert rows.volume[0] == 0 < rows.volume[30] < final.volume[0]


def test_nothing_is_shown_from_the_future() -> None:
    """The newest row is the one that forms now, whatever end is asked for."""
    assert int(series().last(EVER, 1, NOW).time[0]) == NOW - 30_000
    assert len(series().first(TimeSpan(NOW, DISTANT_FUTURE_MS), 5, NOW)) == 0


def test_quiet_minutes_are_flat_rows_where_they_are_published() -> None:
    """A minute without trades repeats the last close four times; volume 0, trades 0."""
    rows = series(replace(MARKET, quiet=0.5)).last(TimeSpan(0, NOW - NOW % MINUTE), 1_000, NOW)
    quiet = rows.volume == 0

    assert 300 < quiet.sum() < 700
    assert np.array_equal(quiet, rows.trades == 0)
    before = rows.close[:-1][quiet[1:]]
    for column in (rows.open, rows.high, rows.low, rows.close):
        assert np.array_equal(column[1:][quiet[1:]], before)


def test_quiet_minutes_have_no_row_where_they_are_not_published() -> None:
    """Such a slot is absent where the exchange publishes trades only."""
    rows = series(replace(MARKET, quiet=0.5, publishes_quiet=False)).first(
        TimeSpan(BORN, BORN + 1_000 * MINUTE), 1_000, NOW
    )

    assert 300 < len(rows) < 700
    assert (rows.volume > 0).all()


def test_late_rows_come_after_a_while() -> None:
    """Within `late_ms` of its close a row may be absent; its neighbours stay equal."""
    market = replace(MARKET, quiet=0.5, late_ms=10 * MINUTE)
    window = TimeSpan(NOW - 60 * MINUTE, NOW - NOW % MINUTE)
    early = series(market).first(window, 100, NOW)
    later = series(market).first(window, 100, NOW + 11 * MINUTE)

    missing = np.setdiff1d(later.time, early.time)
    assert len(missing) > 0
    assert (missing > NOW - 11 * MINUTE).all()
    assert (later.take(np.isin(later.time, missing)).trades == 0).all()
    assert same(later.take(np.isin(later.time, early.time)), early)


def test_rows_from_before_trading_move_without_volume() -> None:
    """Until trading begins prices move, and nothing is traded."""
    traded = BORN + 50 * MINUTE + 1
    rows = series(replace(MARKET, traded_ms=traded)).first(EVER, 100, NOW)

    assert (rows.volume[:50] == 0).all()
    assert (rows.trades[:50] == 0).all()
    assert (rows.volume[50:] > 0).all()
    assert len(np.unique(rows.close[:50])) > 10


def test_replayed_series_shows_rows_once_they_have_opened() -> None:
    """A replayed series has its file's rows up to now; the forming one in part."""
    final = series().first(TimeSpan(BORN, DISTANT_FUTURE_MS), 10, NOW)
    replayed = ReplayedSeries(final, Decimals(2, 3), FixedGrid(timedelta(minutes=1)))
    now = int(final.time[4]) + 30_000

    seen = replayed.last(EVER, 100, now)
    assert same(seen.take(slice(0, 4)), final.take(slice(0, 4)))
    assert len(seen) == 5
    assert seen.open[4] == final.open[4]
    assert 0 < seen.volume[4] < final.volume[4]
    assert same(replayed.first(EVER, 3, now), final.take(slice(0, 3)))
    assert replayed.newest(2, now) == final.time[3]


def test_closes_of_months_follow_the_calendar() -> None:
    """A candle closes when the next one opens, also where steps differ in length."""
    january, february = 1_767_225_600_000, 1_769_904_000_000

    closes = closes_ms(epoch_grid(Interval.ONE_MONTH), np.array([february, january]))
    assert closes.tolist() == [1_772_323_200_000, february]
