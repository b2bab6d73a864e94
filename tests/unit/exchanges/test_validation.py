"""Sifting against an oracle that looks at one row at a time."""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import (
    MINUTES,
    MONTHS,
    Row,
    a_row,
    candles_of,
    grids,
    rows_of,
    slots_near,
    steady,
    window_of,
)

from mdp_core.domain.candles import OPTIONAL_COLUMNS
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import Grid
from mdp_core.domain.windows import Window
from mdp_core.exchanges.validation import ValidatedRows, validate

NAN, INF = math.nan, math.inf
T0, T1, T2, T3 = (minute * 60_000 for minute in range(4))
WINDOW = window_of(MINUTES, 0, 10)

numbers = st.one_of(
    st.floats(1, 100),
    st.sampled_from([0.0, 1.0, 2.0, -1.0, NAN, INF, -INF, 5e-324, 1e308]),
)


def validated(*rows: Row) -> ValidatedRows:
    return validate(candles_of(list(rows)), MINUTES, WINDOW)


@dataclass(frozen=True)
class Expected:
    """The rows that stay, and the slots that are refused."""

    kept: list[Row]
    refused: list[int]


def expected_of(rows: Iterable[Row], grid: Grid, window: Window) -> Expected:
    """Judge one row after the other, in plain Python."""
    slots: dict[int, dict[bytes, Row]] = {}
    for row in rows:
        if to_ms(window.start) <= row[0] < to_ms(window.end):
            same = struct.pack("q9d", *row)
            slots.setdefault(grid.index(from_ms(row[0])), {})[same] = row
    refused = [
        slot
        for slot, distinct in slots.items()
        if len(distinct) > 1 or any(_is_wrong(row, grid) for row in distinct.values())
    ]
    kept = [next(iter(slots[slot].values())) for slot in sorted(slots) if slot not in refused]
    return Expected(kept, sorted(refused))


def _is_wrong(row: Row, grid: Grid) -> bool:
    time, open_, high, low, close, volume = row[:6]
    return (
        grid.at(grid.index(from_ms(time))) != from_ms(time)
        or not all(math.isfinite(number) for number in row[1:6])
        or min(open_, high, low, close) <= 0
        or not low <= open_ <= high
        or not low <= close <= high
        or volume < 0
    )


@st.composite
def rows_near(draw: st.DrawFn, grid: Grid, first: int, stop: int) -> list[Row]:
    """Draw rows in and around a window, mostly right, some doubled, in any order."""
    slots = st.integers(first - 3, stop + 3)
    off_grid = st.sampled_from([0, 0, 0, 1, 30_000])
    changes = st.dictionaries(
        st.sampled_from(["open", "high", "low", "close", "volume"]), numbers, max_size=2
    )
    rows = [
        a_row(int(grid.times(slot, slot + 1)[0]) + late, **changed)
        for slot, late, changed in draw(
            st.lists(st.tuples(slots, off_grid, st.one_of(st.just({}), changes)), max_size=25)
        )
    ]
    doubled = draw(st.lists(st.sampled_from(rows), max_size=5)) if rows else []
    return draw(st.permutations(rows + doubled))


@steady
@given(grids, st.data())
def test_rows_are_judged_as_one_by_one(grid: Grid, data: st.DataObject) -> None:
    """The kept rows equal a row-wise oracle's: ascending, unique and on the grid."""
    first = data.draw(slots_near(grid))
    stop = first + data.draw(st.integers(0, 20))
    window = window_of(grid, first, stop)
    rows = data.draw(rows_near(grid, first, stop))

    result = validate(candles_of(rows), grid, window)

    expected = expected_of(rows, grid, window)
    times = result.candles.time.tolist()
    assert rows_of(result.candles) == expected.kept
    assert times == sorted(set(times))
    assert all(grid.floor(from_ms(time)) == from_ms(time) for time in times)
    assert sorted({grid.index(row.slot) for row in result.rejected}) == expected.refused


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"open": NAN}, "not finite", id="open is not a number"),
        pytest.param({"high": INF}, "not finite", id="infinite high"),
        pytest.param({"low": -INF}, "not finite", id="infinite low"),
        pytest.param({"close": NAN}, "not finite", id="close is not a number"),
        pytest.param({"volume": NAN}, "not finite", id="volume is not a number"),
        pytest.param({"volume": INF}, "not finite", id="infinite volume"),
        pytest.param({"quote_volume": INF}, "not finite", id="infinite quote volume"),
        pytest.param({"low": 0.0}, "not positive", id="price of zero"),
        pytest.param({"low": -9.0}, "not positive", id="negative price"),
        pytest.param({"high": 8.0}, "outside", id="high below low"),
        pytest.param({"high": 10.5}, "outside", id="close above high"),
        pytest.param({"open": 12.1}, "outside", id="open above high"),
        pytest.param({"low": 10.1}, "outside", id="open below low"),
        pytest.param({"close": 8.9}, "outside", id="close below low"),
        pytest.param({"volume": -1.0}, "negative", id="negative volume"),
        pytest.param({"quote_volume": -1.0}, "negative", id="negative quote volume"),
        pytest.param({"trades": -1.0}, "trades", id="negative trades"),
        pytest.param({"taker_buy_volume": INF}, "not finite", id="infinite taker volume"),
        pytest.param({"taker_buy_quote_volume": -1.0}, "negative", id="negative taker volume"),
        pytest.param({"trades": 2.0**31}, "trades", id="trades beyond int4"),
    ],
)
def test_row_that_cannot_be_right_costs_its_slot(changed: dict[str, float], reason: str) -> None:
    """The row is named with its reason; its neighbours are kept."""
    result = validated(a_row(T0), a_row(T1, **changed), a_row(T2))

    assert result.candles.time.tolist() == [T0, T2]
    assert [row.slot for row in result.rejected] == [from_ms(T1)]
    assert reason in result.rejected[0].reason


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"volume": 0.0, "quote_volume": 0.0, "trades": 0.0}, id="nobody traded"),
        pytest.param({"open": 9.0, "high": 9.0, "low": 9.0, "close": 9.0}, id="flat"),
        pytest.param({"open": 9.0, "close": 12.0}, id="from low to high"),
        pytest.param({"quote_volume": NAN, "trades": NAN}, id="no quote volume, no trades"),
        pytest.param({"trades": 2.0**31 - 1}, id="as many trades as the column holds"),
        pytest.param({"low": 5e-324}, id="smallest price"),
        pytest.param({"high": 1.7e308}, id="largest price"),
    ],
)
def test_unusual_row_that_can_be_right_stays(changed: dict[str, float]) -> None:
    """Flat and untraded candles are facts."""
    result = validated(a_row(T0, **changed))

    assert len(result.candles) == 1
    assert not result.rejected


def test_rows_outside_the_window_are_dropped_without_a_word() -> None:
    """Exchanges send what was not asked for; wrong strays cost nothing."""
    end = to_ms(WINDOW.end)
    result = validated(a_row(-1), a_row(T0), a_row(end), a_row(end + 60_000, low=-1.0))

    assert result.candles.time.tolist() == [T0]
    assert not result.rejected


def test_descending_rows_come_out_ascending() -> None:
    """One exchange sends the newest first."""
    assert validated(a_row(T2), a_row(T1), a_row(T0)).candles.time.tolist() == [T0, T1, T2]


def test_identical_duplicates_collapse() -> None:
    """The same row again is the same fact, also where numbers are not given."""
    bare = a_row(T1, quote_volume=NAN, trades=NAN)
    result = validated(bare, a_row(T0), bare, a_row(T0), bare)

    assert result.candles.time.tolist() == [T0, T1]
    assert not result.rejected


def test_differing_duplicates_are_all_rejected() -> None:
    """It is unknown which is right: neither is kept, both are named."""
    result = validated(a_row(T0), a_row(T0, close=10.0), a_row(T1))

    assert result.candles.time.tolist() == [T1]
    assert [row.slot for row in result.rejected] == [from_ms(T0)]
    assert {row.reason for row in result.rejected} == {"rows of one slot that differ"}


@pytest.mark.parametrize("column", OPTIONAL_COLUMNS)
def test_duplicates_that_differ_in_one_optional_number_are_rejected(column: str) -> None:
    """None given and a number are different facts."""
    result = validated(a_row(T0), a_row(T0, **{column: NAN}))

    assert len(result.candles) == 0
    assert [row.slot for row in result.rejected] == [from_ms(T0)]


def test_row_off_the_grid_takes_its_whole_slot() -> None:
    """A right row beside it is not trusted either; the next slot is."""
    result = validated(a_row(T0), a_row(T0 + 1), a_row(T1))

    assert result.candles.time.tolist() == [T1]
    assert {row.slot for row in result.rejected} == {from_ms(T0)}
    assert "off the grid" in result.rejected[0].reason


def test_month_that_opens_on_the_second_is_off_the_grid() -> None:
    """Calendar months are checked as any grid."""
    window = window_of(MONTHS, 0, 12)
    second_of_march = to_ms(MONTHS.at(2)) + 86_400_000
    rows = candles_of([a_row(to_ms(MONTHS.at(1))), a_row(second_of_march)])

    result = validate(rows, MONTHS, window)

    assert result.candles.time.tolist() == [to_ms(MONTHS.at(1))]
    assert [row.slot for row in result.rejected] == [MONTHS.at(2)]


def test_rejected_row_is_told_in_full() -> None:
    """An operator can see later what the exchange sent."""
    (rejected,) = validated(a_row(T3, volume=-0.25)).rejected

    assert rejected.row == (
        "time=180000, open=10.0, high=12.0, low=9.0, close=11.0, volume=-0.25, "
        "quote_volume=52.5, trades=7.0, taker_buy_volume=2.0, taker_buy_quote_volume=21.5"
    )


def test_one_bad_row_costs_one_slot_of_a_page() -> None:
    """Not years."""
    window = window_of(MINUTES, 0, 499)
    rows = [a_row(minute * 60_000) for minute in range(499)]
    rows[250] = a_row(250 * 60_000, low=-1.0)

    result = validate(candles_of(rows), MINUTES, window)

    assert len(result.candles) == 498
    assert len(result.rejected) == 1


@steady
@given(st.lists(st.floats(width=64), min_size=1, max_size=8))
def test_numbers_that_stay_are_bit_for_bit_those_that_came(values: list[float]) -> None:
    """Sifting chooses; it never changes."""
    rows = [
        a_row(minute * 60_000, low=abs(value), high=1.7e308)
        for minute, value in enumerate(values)
        if 0 < abs(value) <= 10
    ]

    result = validate(candles_of(rows), MINUTES, WINDOW)

    assert [struct.pack("q9d", *row) for row in rows_of(result.candles)] == [
        struct.pack("q9d", *row) for row in rows
    ]


def test_no_rows_sift_to_none() -> None:
    """An empty answer is a fact, not an error."""
    result = validated()

    assert len(result.candles) == 0
    assert not result.rejected
    assert result.candles.time.dtype == np.int64
