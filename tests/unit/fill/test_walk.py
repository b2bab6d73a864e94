"""The two directions of a walk, against lists of slots."""

from dataclasses import dataclass
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import (
    MINUTES,
    a_row,
    candles_of,
    grids,
    rows_of,
    slots_near,
    slots_of,
    steady,
    window_of,
)

from mdp_core.domain.intervals import Grid
from mdp_core.domain.windows import Window
from mdp_core.errors import WindowTooLarge
from mdp_core.fill.pages import Page
from mdp_core.service.scan import Direction, FromEnd, FromStart, _first_of_each_slot

DIRECTIONS = {"from the start": FromStart(), "from the end": FromEnd()}


@dataclass(frozen=True)
class Span:
    """A window on a grid, as slots."""

    grid: Grid
    first: int
    stop: int

    @property
    def window(self) -> Window:
        return window_of(self.grid, self.first, self.stop)

    def seen_from(self, direction: Direction) -> list[int]:
        slots = list(range(self.first, self.stop))
        return slots if isinstance(direction, FromStart) else slots[::-1]


@st.composite
def spans(draw: st.DrawFn) -> Span:
    grid = draw(grids)
    first = draw(slots_near(grid))
    return Span(grid, first, first + draw(st.integers(1, 60)))


directions = st.sampled_from([*DIRECTIONS.values()])


@steady
@given(spans(), directions, st.one_of(st.integers(1, 80), st.just(1_000_000)))
def test_part_is_split_off_at_the_end_that_is_wanted(
    span: Span, direction: Direction, slots: int
) -> None:
    """It holds the first slots seen from there, however many are wanted; the others are left."""
    seen = span.seen_from(direction)

    part, left = direction.split(span.window, slots, span.grid)

    assert slots_of(span.grid, part) == sorted(seen[:slots])
    assert slots_of(span.grid, left) == sorted(seen[slots:])


@steady
@given(spans(), directions, st.lists(st.integers(1, 20), max_size=8))
def test_walked_and_left_are_the_whole(span: Span, direction: Direction, steps: list[int]) -> None:
    """However many steps were made."""
    left, done = span.window, 0
    for step in steps:
        if left.is_empty:
            break
        _, left = direction.split(left, step, span.grid)
        done += step
        walked = direction.walked(span.window, left)
        assert slots_of(span.grid, walked) == sorted(span.seen_from(direction)[:done])


@steady
@given(spans(), directions, st.data())
def test_answer_is_cut_after_the_last_wanted_candle(
    span: Span, direction: Direction, data: st.DataObject
) -> None:
    """It holds as many candles as were wanted, those first seen, and ends with one."""
    slots = list(range(span.first, span.stop))
    candles = sorted(data.draw(st.sets(st.sampled_from(slots), min_size=1)))
    rows = data.draw(st.integers(1, len(candles)))

    position = direction.position(rows, len(candles))
    last_wanted = span.grid.at(candles[position])
    cut = direction.cut(span.window, last_wanted, span.grid)

    wanted = [slot for slot in span.seen_from(direction) if slot in candles][:rows]
    inside = [slot for slot in candles if slot in slots_of(span.grid, cut)]
    assert inside == sorted(wanted)
    assert span.grid.index(last_wanted) == wanted[-1]


def pages_of(*slots: tuple[int, int]) -> list[Page]:
    return [Page(number, window_of(MINUTES, *run)) for number, run in enumerate(slots)]


PAGES = pages_of((0, 10), (20, 30), (40, 50))


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_part_that_needs_few_enough_pages_stays(direction: Direction) -> None:
    """As many as may be fetched are allowed."""
    part = window_of(MINUTES, 0, 50)

    assert direction.bound(part, PAGES, 3) == part
    assert direction.bound(part, [], 1) == part


def test_part_from_the_start_that_needs_too_many_pages_is_refused() -> None:
    """An answer that ended early would be taken for all there is."""
    with pytest.raises(WindowTooLarge) as caught:
        FromStart().bound(window_of(MINUTES, 0, 50), PAGES, 2)

    assert (caught.value.pages, caught.value.maximum) == (3, 2)


@pytest.mark.parametrize(("most", "first"), [(2, 20), (1, 40)])
def test_part_from_the_end_goes_back_over_as_many_pages_as_may_be(most: int, first: int) -> None:
    """To the start of the farthest page that may be fetched."""
    bound = FromEnd().bound(window_of(MINUTES, 0, 55), PAGES, most)

    assert bound == window_of(MINUTES, first, 55)


@steady
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 100))))
def test_first_given_candle_of_a_slot_stays(given_: list[tuple[int, int]]) -> None:
    """Stored rows come before provisional ones."""
    candles = candles_of([a_row(minute, trades=number) for minute, number in given_])
    first = dict(reversed(given_))

    chosen = rows_of(_first_of_each_slot(candles))

    assert [(row[0], row[-1]) for row in chosen] == sorted(first.items())


def test_directions_agree_on_the_time_of_a_single_candle() -> None:
    """With one candle in the window both cut to it."""
    window, only = window_of(MINUTES, 0, 10), MINUTES.at(4)

    assert _kept(FromStart(), window, only) == window_of(MINUTES, 0, 5)
    assert _kept(FromEnd(), window, only) == window_of(MINUTES, 4, 10)


def _kept(direction: Direction, window: Window, time: datetime) -> Window:
    return direction.cut(window, time, MINUTES)
