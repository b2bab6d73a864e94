"""Grids against a calendar: the candle of a time, and when the next one opens."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import CASES, MINUTES, MONTHS, Case, cases, slots_near, steady, times, utc

from mdp_core.domain.clock import EPOCH, from_ms, to_ms
from mdp_core.domain.intervals import FixedGrid, Grid, Interval, epoch_grid

JUST_BEFORE = EPOCH - timedelta(microseconds=1)
MONDAYS = epoch_grid(Interval.ONE_WEEK, timedelta(days=4))
THURSDAYS = epoch_grid(Interval.ONE_WEEK)
DAYS = epoch_grid(Interval.ONE_DAY)
TODAYS_THREE_DAYS = epoch_grid(Interval.THREE_DAYS, timedelta(days=1))


def grid_of(name: str) -> Grid:
    return next(case.grid for case in CASES if case.name == name)


def test_every_interval_has_a_case() -> None:
    """A new interval must come with a calendar to hold it against."""
    assert {case.name.split(",")[0] for case in CASES} == set(Interval)


@pytest.mark.parametrize(
    ("grid", "time", "opened"),
    [
        pytest.param(MONDAYS, utc(2024, 6, 10), utc(2024, 6, 10), id="documented Monday"),
        pytest.param(MONDAYS, utc(2024, 6, 9, 23, 59), utc(2024, 6, 3), id="Sunday before it"),
        pytest.param(MONDAYS, utc(2017, 7, 5), utc(2017, 7, 3), id="Wednesday of 2017"),
        pytest.param(MONDAYS, utc(1970, 1, 1), utc(1969, 12, 29), id="epoch in a Monday week"),
        pytest.param(THURSDAYS, utc(1970, 1, 7, 23), utc(1970, 1, 1), id="the first week"),
        pytest.param(THURSDAYS, utc(2024, 6, 10), utc(2024, 6, 6), id="Monday in a Thursday week"),
        pytest.param(TODAYS_THREE_DAYS, utc(2024, 1, 3), utc(2024, 1, 1), id="3d on 2024-01-01"),
        pytest.param(TODAYS_THREE_DAYS, utc(2026, 7, 12), utc(2026, 7, 10), id="3d on 2026-07-10"),
        pytest.param(MONTHS, utc(2024, 2, 29, 23, 59), utc(2024, 2), id="29 February"),
        pytest.param(MONTHS, utc(1969, 12, 31), utc(1969, 12), id="month before the epoch"),
        pytest.param(DAYS, utc(1969, 12, 31, 23, 59), utc(1969, 12, 31), id="day before the epoch"),
        pytest.param(MINUTES, JUST_BEFORE, utc(1969, 12, 31, 23, 59), id="just before the epoch"),
    ],
)
def test_time_falls_into_the_candle_that_opened_last(
    grid: Grid, time: datetime, opened: datetime
) -> None:
    """Weeks have a phase, months no fixed length, and time goes on before the epoch."""
    assert grid.floor(time) == opened


@pytest.mark.parametrize(
    ("month", "days"),
    [
        pytest.param(utc(2023, 2), 28, id="February"),
        pytest.param(utc(2024, 2), 29, id="leap year"),
        pytest.param(utc(1900, 2), 28, id="century without"),
        pytest.param(utc(2000, 2), 29, id="century with"),
        pytest.param(utc(2024, 12), 31, id="December"),
        pytest.param(utc(2024, 4), 30, id="April"),
    ],
)
def test_month_closes_when_the_next_one_opens(month: datetime, days: int) -> None:
    """A monthly candle is as long as its month."""
    assert MONTHS.next(month) - month == timedelta(days=days)


@pytest.mark.parametrize(
    ("name", "anchor"),
    [
        ("1m", EPOCH),
        ("1M", EPOCH),
        ("3d, phase 0", EPOCH),
        ("3d, phase 1", utc(1970, 1, 2)),
        ("3d, phase 2", utc(1970, 1, 3)),
        ("1w, Thursday", EPOCH),
        ("1w, Monday", utc(1970, 1, 5)),
    ],
)
def test_slot_zero_is_the_anchor(name: str, anchor: datetime) -> None:
    """Page numbers are counted from here: it must never move."""
    grid = grid_of(name)

    assert grid.at(0) == anchor
    assert grid.index(anchor - timedelta(microseconds=1)) == -1


@pytest.mark.parametrize("interval", list(Interval))
def test_interval_without_phase_opens_at_the_epoch(interval: Interval) -> None:
    """The usual grid is multiples from the epoch."""
    assert epoch_grid(interval).floor(EPOCH) == EPOCH


@pytest.mark.parametrize("case", CASES, ids=repr)
@steady
@given(st.data())
def test_grid_opens_where_the_calendar_says(case: Case, data: st.DataObject) -> None:
    """Each slot opens at a calendar open, lasts until the next, has its own number."""
    index = data.draw(slots_near(case.grid))
    opened, following = case.grid.at(index), case.grid.at(index + 1)

    assert case.floor(opened) == opened
    assert case.floor(following - timedelta(microseconds=1)) == opened
    assert case.floor(following) == following
    assert case.grid.index(opened) == case.grid.index(following) - 1 == index


@steady
@given(cases, times)
def test_time_lies_between_its_open_and_the_next(case: Case, time: datetime) -> None:
    """`floor`, `next` and `ceil` agree with the calendar for any time."""
    floor, following = case.grid.floor(time), case.grid.next(time)

    assert floor == case.floor(time)
    assert floor <= time < following
    assert case.floor(following) == following
    assert case.floor(following - timedelta(microseconds=1)) == floor
    assert case.grid.ceil(time) == (time if time == floor else following)


@steady
@given(cases, times)
def test_opens_are_aware_utc_times(case: Case, time: datetime) -> None:
    """Windows are made of what a grid gives, and refuse anything but UTC."""
    assert case.grid.floor(time).tzinfo is UTC
    assert case.grid.next(time).tzinfo is UTC


@steady
@given(st.data(), cases)
def test_slots_are_counted_as_if_one_by_one(data: st.DataObject, case: Case) -> None:
    """`count` equals stepping from open to open, and adjacent windows add up."""
    first = data.draw(slots_near(case.grid))
    lengths = data.draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))
    start, middle = case.grid.at(first), case.grid.at(first + lengths[0])
    end = case.grid.at(first + sum(lengths))

    stepped, time = 0, start
    while time < end:
        stepped, time = stepped + 1, case.grid.next(time)

    assert case.grid.count(start, end) == stepped == sum(lengths)
    assert case.grid.count(start, end) == case.grid.count(start, middle) + lengths[1]


@steady
@given(cases, st.lists(times, max_size=20))
def test_many_times_are_numbered_as_each_alone(case: Case, many: list[datetime]) -> None:
    """`indices` is `index` over a column, before the epoch too."""
    times_ms = np.array([to_ms(time) for time in many], np.int64)
    alone = [case.grid.index(from_ms(ms)) for ms in times_ms.tolist()]

    indices = case.grid.indices(times_ms)

    assert indices.dtype == np.int64
    assert indices.tolist() == alone


@steady
@given(st.data(), cases)
def test_many_opens_are_given_as_each_alone(data: st.DataObject, case: Case) -> None:
    """`times` is `at` over a run of slots, negative ones too; an empty run gives none."""
    first = data.draw(slots_near(case.grid))
    stop = first + data.draw(st.integers(0, 50))

    opens = case.grid.times(first, stop)

    assert opens.dtype == np.int64
    assert opens.tolist() == [to_ms(case.grid.at(slot)) for slot in range(first, stop)]


@steady
@given(st.sampled_from([i for i in Interval if i is not Interval.ONE_MONTH]), times)
def test_grid_takes_the_phase_of_a_known_open(interval: Interval, opened: datetime) -> None:
    """The grid read from a series' own first row opens there, with the same step."""
    grid = epoch_grid(interval)
    assert isinstance(grid, FixedGrid)

    phased = grid.with_phase_of(opened)

    assert phased.floor(opened) == opened
    assert phased.next(opened) - opened == grid.step


@pytest.mark.parametrize(
    "phase",
    [
        pytest.param(timedelta(days=-1), id="negative"),
        pytest.param(timedelta(days=3), id="a whole step"),
        pytest.param(timedelta(days=4), id="more than a step"),
    ],
)
def test_phase_outside_the_step_is_refused(phase: timedelta) -> None:
    """Two grids with the same opens must be equal, or a page would be asked for twice."""
    with pytest.raises(ValueError, match="phase"):
        FixedGrid(timedelta(days=3), phase)


def test_months_have_no_phase() -> None:
    """`1M` gives calendar months whatever the phase."""
    assert epoch_grid(Interval.ONE_MONTH, timedelta(days=4)) == MONTHS
