"""Coverage in a real database against sets of slots: months, phases, weeks."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from support.strategies import CASES, Case, slots_near, slots_of, window_of

from mdp_core.domain.candles import Candles
from mdp_core.domain.intervals import Grid
from mdp_core.domain.windows import Window
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.database.database import open_database

_SPAN = 120
# What lies in the future is never covered.
_NEWEST = datetime(2026, 1, 1, tzinfo=UTC)
# One grid of minutes, and each that is not a multiple from the epoch of less than a day.
_CASES = [case for case in CASES if case.name[:2] in {"1m", "3d", "1w", "1M"}]

_ADD_SERIES = """
WITH exchange AS (INSERT INTO exchanges (code, name) VALUES ('none', 'None')),
added AS (
    INSERT INTO symbols (exchange, market_type, name, native, base, quote, multiplier, active)
    VALUES ('none', 'perp', 'A-B', 'AB', 'A', 'B', 1, true) RETURNING id
)
INSERT INTO series (symbol_id, interval) SELECT id, '1d' FROM added RETURNING id
"""


@dataclass(frozen=True)
class Page:
    """An exchange's slots in some windows, and those that have a candle."""

    runs: list[tuple[int, int]]
    traded: frozenset[int]


@dataclass(frozen=True)
class Scene:
    """Pages that come one after the other, and windows that are asked for."""

    case: Case
    pages: list[Page]
    asked: list[tuple[int, int]]


@dataclass
class Model:
    """The store as sets of slots; of each candle, the page that brought it."""

    covered: set[int] = field(default_factory=set[int])
    candles: dict[int, int] = field(default_factory=dict[int, int])

    def save(self, page: Page, number: int) -> int:
        """Take what is new of a page; tell how many candles were."""
        fresh = {slot for run in page.runs for slot in range(*run)} - self.covered
        self.candles |= dict.fromkeys(fresh & page.traded, number)
        self.covered |= fresh
        return len(fresh & page.traded)


@st.composite
def _runs(draw: st.DrawFn, origin: int) -> list[tuple[int, int]]:
    """Draw ascending, disjoint, non-empty runs of slots; some touch."""
    edges = st.sets(st.integers(0, _SPAN), min_size=2, max_size=8)
    at = [origin + edge for edge in sorted(draw(edges))]
    between = list(pairwise(at))
    return [run for run in between if draw(st.booleans())] or between[:1]


@st.composite
def _scenes(draw: st.DrawFn, case: Case) -> Scene:
    origin = min(draw(slots_near(case.grid)), case.grid.index(_NEWEST) - _SPAN)
    slots = st.integers(origin - 5, origin + _SPAN + 5)
    pages = st.builds(Page, _runs(origin), st.frozensets(slots, max_size=60))
    asked = st.tuples(slots, st.integers(1, _SPAN)).map(lambda drawn: (drawn[0], sum(drawn)))
    return Scene(
        case,
        draw(st.lists(pages, min_size=1, max_size=5)),
        [(origin - 10, origin + _SPAN + 10), *draw(st.lists(asked, max_size=3))],
    )


def _candles(grid: Grid, page: Page, number: int) -> Candles:
    """Give candles that tell which page brought them."""
    opens = [grid.times(slot, slot + 1)[0] for slot in sorted(page.traded)]
    price = np.full(len(opens), float(number))
    return Candles(np.array(opens, np.int64), *(price.copy() for _ in range(7)))


def _slots(grid: Grid, windows: list[Window]) -> list[int]:
    return [slot for window in windows for slot in slots_of(grid, window)]


@pytest.fixture
async def store(database_url: str) -> AsyncGenerator[CandleStore]:
    """A store that has one connection."""
    async with open_database(
        database_url, name="test", size=1, statement_timeout_seconds=10
    ) as database:
        yield CandleStore(database)


@pytest.fixture
def series_id(database: psycopg.Connection) -> int:
    """A series of an exchange that is never asked."""
    row = database.execute(_ADD_SERIES).fetchone()
    assert row is not None
    return row[0]


@examples(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(_CASES).flatmap(_scenes))
async def test_store_agrees_with_sets_of_slots(
    store: CandleStore, database: psycopg.Connection, series_id: int, scene: Scene
) -> None:
    """After each page: covered windows, gaps, and which page's candle is stored."""
    database.execute("TRUNCATE candles")
    database.execute("UPDATE series SET coverage = '{}'")
    model, grid = Model(), scene.case.grid
    for number, page in enumerate(scene.pages, start=1):
        windows = [window_of(grid, *run) for run in page.runs]
        new = await store.save(series_id, windows, _candles(grid, page, number))

        assert new == model.save(page, number)
        for first, stop in scene.asked:
            window, inside = window_of(grid, first, stop), range(first, stop)
            missing = await store.uncovered(series_id, window)
            covered = await store.covered(series_id, window)
            rows = await store.read(series_id, window)
            assert _slots(grid, missing) == [s for s in inside if s not in model.covered]
            assert _slots(grid, covered) == [s for s in inside if s in model.covered]
            assert dict(zip(grid.indices(rows.time).tolist(), rows.close, strict=True)) == {
                slot: by for slot, by in model.candles.items() if slot in inside
            }
            assert all(a.end < b.start for a, b in pairwise(missing))
