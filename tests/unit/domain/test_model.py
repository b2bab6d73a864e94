"""Windows and columns of candles, against sets and lists of rows."""

import math
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import a_row, candles_of, rows_of, steady, times, utc

from mdp_core.domain.candles import COLUMNS, Candle, Candles
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.windows import Window, hull

MINUTE = 60_000


@pytest.mark.parametrize(
    "zone",
    [
        pytest.param(None, id="naive"),
        pytest.param(timezone(timedelta(hours=2)), id="another zone"),
        pytest.param(timezone(timedelta(0), "Z"), id="another name for UTC"),
    ],
)
def test_window_takes_nothing_but_utc(zone: timezone | None) -> None:
    """Times of another zone would be compared and printed as if they were the same."""
    start, end = utc(2024).replace(tzinfo=zone), utc(2025)

    with pytest.raises(ValueError, match="UTC"):
        Window(start, end)
    with pytest.raises(ValueError, match="UTC"):
        Window(utc(2023), start)


def test_window_cannot_end_before_it_starts() -> None:
    """Only an empty window starts where it ends."""
    with pytest.raises(ValueError, match="can't start"):
        Window(utc(2025), utc(2024))
    assert Window(utc(2024), utc(2024)).is_empty
    assert not Window(utc(2024), utc(2025)).is_empty


@steady
@given(st.lists(times, min_size=2, max_size=2).map(sorted), times, times, times)
def test_clipped_window_holds_what_both_hold(
    bounds: list[datetime], start: datetime, end: datetime, probe: datetime
) -> None:
    """A time is in the clipped window iff in the window and between the bounds."""
    window = Window(bounds[0], bounds[1])
    clipped = window.clip(start, end)

    for time in (probe, *bounds, start, end):
        inside = window.start <= time < window.end and start <= time < end
        assert (clipped.start <= time < clipped.end) == inside


@steady
@given(st.lists(times, min_size=2, max_size=2).map(sorted), times, times)
def test_clipped_window_lies_inside_the_window(
    bounds: list[datetime], start: datetime, end: datetime
) -> None:
    """An empty one too: going on from its end must stay inside the query."""
    window = Window(bounds[0], bounds[1])

    clipped = window.clip(start, end)

    assert window.start <= clipped.start <= clipped.end <= window.end


def test_hull_spans_from_the_first_to_the_last() -> None:
    """Slots between the windows belong to it."""
    windows = [Window(utc(2020), utc(2021)), Window(utc(2023), utc(2024))]

    assert hull(windows) == Window(utc(2020), utc(2024))
    assert hull(windows[:1]) == windows[0]


@steady
@given(st.lists(st.integers(-5, 15)), st.integers(0, 10), st.integers(0, 10))
def test_rows_inside_a_window_are_chosen_in_their_order(
    minutes: list[int], start: int, length: int
) -> None:
    """The start belongs to it, the end does not, and no order is made."""
    candles = candles_of([a_row(minute * MINUTE) for minute in minutes])
    window = Window(from_ms(start * MINUTE), from_ms((start + length) * MINUTE))

    inside = candles.inside(window)

    expected = [minute * MINUTE for minute in minutes if start <= minute < start + length]
    assert inside.time.tolist() == expected
    assert all(len(getattr(inside, name)) == len(expected) for name in COLUMNS)


@steady
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=4))
def test_concatenated_candles_follow_one_another(parts: list[list[int]]) -> None:
    """Every row of every part, in order, whatever is empty."""
    joined = Candles.concatenate([candles_of([a_row(m) for m in part]) for part in parts])

    assert rows_of(joined) == [a_row(minute) for part in parts for minute in part]
    assert joined.time.dtype == np.int64
    assert joined.trades.dtype == np.float64


def test_row_gives_none_for_what_the_exchange_does_not_tell() -> None:
    """NaN is how columns say "none given"; a candle for people says None."""
    candles = candles_of([a_row(MINUTE), a_row(2 * MINUTE, quote_volume=math.nan, trades=math.nan)])

    full, bare = candles.row(0), candles.row(1)

    assert full == Candle(from_ms(MINUTE), 10.0, 12.0, 9.0, 11.0, 5.0, 52.5, 7, 2.0, 21.5)
    assert isinstance(full.trades, int)
    assert (bare.quote_volume, bare.trades) == (None, None)


def test_columns_keep_the_order_of_the_table() -> None:
    """Binary COPY and every answer rely on it."""
    assert COLUMNS == (
        "time",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "trades",
        "taker_buy_volume",
        "taker_buy_quote_volume",
    )


@steady
@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_milliseconds_survive_the_way_to_a_time_and_back(ms: int) -> None:
    """Integers all the way: no float may touch a time."""
    assert to_ms(from_ms(ms)) == ms


@steady
@given(times)
def test_milliseconds_are_rounded_down(time: datetime) -> None:
    """Before the epoch too."""
    assert timedelta(0) <= time - from_ms(to_ms(time)) < timedelta(milliseconds=1)


@pytest.mark.parametrize("ms", [10**15, -(10**15), 10**30])
def test_time_outside_the_calendar_overflows(ms: int) -> None:
    """There is no such time; nothing is wrapped round."""
    with pytest.raises(OverflowError):
        from_ms(ms)
