"""Planning against sets of slots: what is asked for, and what an answer proves."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import CASES, MINUTES, Case, grids, slots_near, slots_of, steady, window_of

from mdp_core.domain.intervals import Grid, Int64s
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, intersect, subtract
from mdp_core.exchanges.validation import absent_slots
from mdp_core.fill.absence import final_until
from mdp_core.fill.pages import Page, plan


@dataclass(frozen=True)
class Scene:
    """A grid, a slot to count from, gaps as runs of slots, and a reach in slots."""

    grid: Grid
    gaps: list[tuple[int, int]]
    earliest: int
    closed: int
    page_size: int

    @property
    def windows(self) -> list[Window]:
        return [window_of(self.grid, first, stop) for first, stop in self.gaps]

    @property
    def watermarks(self) -> Watermarks:
        earliest, closed = self.grid.at(self.earliest), self.grid.at(self.closed)
        return Watermarks(
            earliest, earliest, settled_until=closed, closed_until=closed, grace_start=closed
        )

    @property
    def askable(self) -> set[int]:
        return set(range(self.earliest, self.closed))

    @property
    def wanted(self) -> set[int]:
        return {slot for run in self.gaps for slot in range(*run)} & self.askable


@st.composite
def runs(draw: st.DrawFn, origin: int) -> list[tuple[int, int]]:
    """Draw ascending, disjoint, non-empty runs of slots; some touch."""
    found, at = list[tuple[int, int]](), origin
    for before, length in draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)))):
        found.append((at + before, at + before + length))
        at += before + length
    return found


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Draw gaps near the anchor or today on any grid, and watermarks to cut them."""
    grid = draw(grids)
    origin = draw(slots_near(grid))
    earliest = origin + draw(st.integers(-20, 100))
    closed = origin + draw(st.integers(-20, 300))
    size = draw(st.one_of(st.integers(1, 8), st.sampled_from([300, 499, 500])))
    return Scene(grid, draw(runs(origin)), earliest, closed, size)


def plan_of(scene: Scene) -> list[Page]:
    return plan(scene.windows, scene.grid, scene.page_size, scene.watermarks)


@steady
@given(scenes())
def test_pages_are_those_that_the_gaps_lie_in(scene: Scene) -> None:
    """A page is planned iff a slot that is missing and can be had lies in it."""
    pages = plan_of(scene)

    assert [page.index for page in pages] == sorted({s // scene.page_size for s in scene.wanted})


@steady
@given(scenes())
def test_page_is_whole_but_for_what_cannot_be_had(scene: Scene) -> None:
    """Its window holds each of its slots that can be asked for, and no other."""
    for page in plan_of(scene):
        first = page.index * scene.page_size
        whole = set(range(first, first + scene.page_size))
        assert set(slots_of(scene.grid, page.window)) == whole & scene.askable


@steady
@given(scenes())
def test_pages_ascend_are_disjoint_and_never_empty(scene: Scene) -> None:
    """Each page is asked for once, in the order of time."""
    pages = plan_of(scene)

    assert not any(page.window.is_empty for page in pages)
    assert all(a.index < b.index for a, b in pairwise(pages))
    assert all(a.window.end <= b.window.start for a, b in pairwise(pages))


@steady
@given(scenes(), st.data())
def test_overlapping_windows_ask_for_the_same_pages(scene: Scene, data: st.DataObject) -> None:
    """Pages of a part of the gaps are among the pages of all of them: shareable."""
    part = data.draw(st.lists(st.sampled_from(scene.gaps), unique=True)) if scene.gaps else []
    some = Scene(scene.grid, sorted(part), scene.earliest, scene.closed, scene.page_size)

    assert set(plan_of(some)) <= set(plan_of(scene))


@pytest.mark.parametrize(
    ("gaps", "watermarks", "pages"),
    [
        pytest.param([], (0, 100), [], id="nothing is missing"),
        pytest.param([(3, 4)], (0, 100), [(0, 0, 10)], id="one slot grows to its page"),
        pytest.param([(0, 10)], (0, 100), [(0, 0, 10)], id="a page exactly"),
        pytest.param([(9, 11)], (0, 100), [(0, 0, 10), (1, 10, 20)], id="across an edge"),
        pytest.param([(1, 2), (5, 6)], (0, 100), [(0, 0, 10)], id="two gaps of one page"),
        pytest.param([(3, 4)], (2, 7), [(0, 2, 7)], id="clipped at both ends"),
        pytest.param([(0, 30)], (12, 13), [(1, 12, 13)], id="one slot can be had"),
        pytest.param([(0, 5)], (5, 100), [], id="wholly before history"),
        pytest.param([(7, 9)], (0, 7), [], id="wholly still forming"),
        pytest.param([(0, 30)], (20, 10), [], id="history begins in the future"),
        pytest.param([(-1, 1)], (-99, 99), [(-1, -10, 0), (0, 0, 10)], id="across the anchor"),
    ],
)
def test_gap_grows_to_its_pages_and_is_clipped(
    gaps: list[tuple[int, int]], watermarks: tuple[int, int], pages: list[tuple[int, int, int]]
) -> None:
    """Pages of ten minutes, as (index, first slot, stop)."""
    planned = plan_of(Scene(MINUTES, gaps, *watermarks, page_size=10))

    assert [(p.index, *_slots(p.window)) for p in planned] == pages


def _slots(window: Window) -> tuple[int, int]:
    return MINUTES.index(window.start), MINUTES.index(window.end)


@steady
@given(grids, st.data())
def test_subtraction_is_that_of_sets(grid: Grid, data: st.DataObject) -> None:
    """The rest is every slot of the windows outside the holes."""
    origin = data.draw(slots_near(grid))
    windows = [window_of(grid, *run) for run in data.draw(runs(origin))]
    bounds = st.tuples(st.integers(-10, 200), st.integers(0, 60))
    holes = [
        window_of(grid, origin + start, origin + start + length)
        for start, length in data.draw(st.lists(bounds, max_size=6))
    ]

    left = subtract(windows, holes)

    taken = {slot for hole in holes for slot in slots_of(grid, hole)}
    slots = [slot for window in windows for slot in slots_of(grid, window)]
    assert [slot for part in left for slot in slots_of(grid, part)] == [
        slot for slot in slots if slot not in taken
    ]
    assert not any(part.is_empty for part in left)
    assert all(any(w.clip(p.start, p.end) == p for w in windows) for p in left)


@steady
@given(grids, st.data())
def test_common_part_is_that_of_sets(grid: Grid, data: st.DataObject) -> None:
    """The intersection is every slot that both hold."""
    origin = data.draw(slots_near(grid))
    windows = [window_of(grid, *run) for run in data.draw(runs(origin))]
    start = origin + data.draw(st.integers(-10, 200))
    stop = start + data.draw(st.integers(0, 60))

    shared = intersect(windows, window_of(grid, start, stop))

    slots = [slot for window in windows for slot in slots_of(grid, window)]
    assert [slot for part in shared for slot in slots_of(grid, part)] == [
        slot for slot in slots if start <= slot < stop
    ]
    assert not any(part.is_empty for part in shared)


@steady
@given(grids, st.data())
def test_absent_slots_are_those_without_a_candle(grid: Grid, data: st.DataObject) -> None:
    """Candles in any order count, also those that open off the grid; strays do not."""
    first = data.draw(slots_near(grid))
    stop = first + data.draw(st.integers(0, 60))
    present = data.draw(st.lists(st.integers(first - 5, stop + 5)))
    late_ms = data.draw(st.sampled_from([0, 1, 59_999]))
    times = [int(grid.times(slot, slot + 1)[0]) + late_ms for slot in present]

    absent = absent_slots(np.array(times, np.int64), grid, window_of(grid, first, stop))

    assert absent.tolist() == [slot for slot in range(first, stop) if slot not in present]


@st.composite
def absences(draw: st.DrawFn) -> tuple[Grid, int, int, Int64s]:
    """Draw a window of a grid and its absent slots, often long runs at its edges."""
    grid = draw(grids)
    first = draw(slots_near(grid))
    stop = first + draw(st.integers(0, 120))
    leading, trailing = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    some = draw(st.sets(st.integers(0, 120)))
    absent = {s for s in range(first, stop) if s < first + leading or s >= stop - trailing}
    absent |= {s for s in range(first, stop) if s - first in some}
    return grid, first, stop, np.array(sorted(absent), np.int64)


@steady
@given(absences(), st.integers(-10, 130), st.integers(-10, 130))
def test_finality_ends_where_lateness_begins(
    absence: tuple[Grid, int, int, Int64s], late: int, settled: int
) -> None:
    """Finality ends at the first absent slot that may only be late."""
    grid, first, _, absent = absence
    late_from, settled_at = first + late, first + settled
    watermarks = Watermarks(
        grid.at(first), grid.at(first), grid.at(settled_at), grid.at(settled_at), grid.at(late_from)
    )

    final = final_until(absent, grid, watermarks)

    maybe_late = [slot for slot in absent.tolist() if slot >= late_from]
    assert final == grid.at(min([settled_at, *maybe_late]))


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_final_until_is_the_settled_edge_where_nothing_is_absent(case: Case) -> None:
    """A full answer is final up to what may still change."""
    nothing, edge = np.empty(0, np.int64), case.grid.at(12)
    watermarks = Watermarks(
        case.grid.at(0), case.grid.at(0), edge, case.grid.at(13), case.grid.at(5)
    )

    assert final_until(nothing, case.grid, watermarks) == edge
