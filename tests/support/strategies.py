"""Strategies of the unit tests: grids with calendar oracles, windows, and rows."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from mdp_core.domain.candles import COLUMNS, Candles
from mdp_core.domain.intervals import FixedGrid, Grid, Interval, MonthGrid, epoch_grid
from mdp_core.domain.series import Symbol
from mdp_core.domain.windows import Window

SHARED = Path(__file__).parents[3] / "shared"

steady = settings(deadline=None)
"""A busy machine must not fail a test."""

CalendarFloor = Callable[[datetime], datetime]
Row = tuple[int, float, float, float, float, float, float, float, float, float]


@dataclass(frozen=True)
class Case:
    """A grid and, written with the calendar alone, which candle a time falls into."""

    name: str
    grid: Grid
    floor: CalendarFloor

    def __repr__(self) -> str:
        return self.name


def _midnight(time: datetime) -> datetime:
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


def _of_minutes(minutes: int) -> CalendarFloor:
    def floor(time: datetime) -> datetime:
        return time.replace(minute=time.minute - time.minute % minutes, second=0, microsecond=0)

    return floor


def _of_hours(hours: int) -> CalendarFloor:
    def floor(time: datetime) -> datetime:
        return _midnight(time).replace(hour=time.hour - time.hour % hours)

    return floor


def _of_three_days(phase: int) -> CalendarFloor:
    def floor(time: datetime) -> datetime:
        days = time.date().toordinal() - date(1970, 1, 1).toordinal() - phase
        return _midnight(time) - timedelta(days=days % 3)

    return floor


def _of_weeks(first_weekday: int) -> CalendarFloor:
    def floor(time: datetime) -> datetime:
        return _midnight(time) - timedelta(days=(time.weekday() - first_weekday) % 7)

    return floor


def _of_months(time: datetime) -> datetime:
    return _midnight(time).replace(day=1)


def _cases() -> list[Case]:
    minutes = [Interval(f"{n}m") for n in (1, 3, 5, 15, 30)]
    hours = [Interval(f"{n}h") for n in (1, 2, 4, 6, 8, 12)]
    three_days, week = Interval.THREE_DAYS, Interval.ONE_WEEK
    return [
        *(Case(i, epoch_grid(i), _of_minutes(int(i[:-1]))) for i in minutes),
        *(Case(i, epoch_grid(i), _of_hours(int(i[:-1]))) for i in hours),
        Case("1d", epoch_grid(Interval.ONE_DAY), _midnight),
        *(
            Case(f"3d, phase {n}", epoch_grid(three_days, timedelta(days=n)), _of_three_days(n))
            for n in range(3)
        ),
        Case("1w, Thursday", epoch_grid(week), _of_weeks(3)),
        Case("1w, Monday", epoch_grid(week, timedelta(days=4)), _of_weeks(0)),
        Case("1M", epoch_grid(Interval.ONE_MONTH), _of_months),
    ]


CASES = _cases()
cases = st.sampled_from(CASES)
grids = cases.map(lambda case: case.grid)
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
    lambda time: time.replace(tzinfo=UTC)
)


def utc(year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0) -> datetime:
    """Give an aware time."""
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def slots_near(grid: Grid) -> st.SearchStrategy[int]:
    """Draw a slot around the anchor, with negative ones, or around our days."""
    now = grid.index(utc(2024, 6, 10))
    return st.one_of(st.integers(-100, 100), st.integers(now - 100, now + 100))


def window_of(grid: Grid, first: int, stop: int) -> Window:
    """Give the window of the slots `first` to `stop`, exclusive."""
    return Window(grid.at(first), grid.at(stop))


def slots_of(grid: Grid, window: Window) -> list[int]:
    """List the slots of a window by walking from open to open."""
    slots, time = list[int](), window.start
    while time < window.end:
        slots.append(grid.index(time))
        time = grid.next(time)
    return slots


def candles_of(rows: list[Row]) -> Candles:
    """Make columns of rows."""
    if not rows:
        return Candles.empty()
    time, *numbers = zip(*rows, strict=True)
    return Candles(np.array(time, np.int64), *(np.array(n, np.float64) for n in numbers))


def rows_of(candles: Candles) -> list[Row]:
    """Make rows of columns."""
    return list(zip(*(getattr(candles, name).tolist() for name in COLUMNS), strict=True))


def a_row(time: int, **changed: float) -> Row:
    """Give a row that can be right, but for what is changed."""
    right = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5.0}
    values = {**right, "quote_volume": 52.5, "trades": 7.0}
    takers = {"taker_buy_volume": 2.0, "taker_buy_quote_volume": 21.5}
    values |= {**takers, **changed}
    return (time, *(values[name] for name in COLUMNS[1:]))  # pyright: ignore[reportReturnType]


def bits(number: float) -> bytes:
    """Give the bytes of a float64: NaN equals NaN, zero differs from minus zero."""
    return struct.pack(">d", number)


def a_symbol() -> Symbol:
    """Give some symbol."""
    return Symbol("binance", "perp", "BTC-USDT", "BTCUSDT", "BTC", "USDT", active=True)


MONTHS = MonthGrid()
MINUTES = FixedGrid(timedelta(minutes=1))
