"""Estimates and orders of fills: known before, and complete."""

import itertools
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import utc

from mdp_core.backfill.chunks import Apart, ChunkGrid, Order, newest_first, oldest_first
from mdp_core.backfill.estimate import Estimate, estimate, page_hull
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window, hull, intersect, subtract
from mdp_core.exchanges.binance import BinanceFuturesAdapter
from mdp_core.exchanges.hyperliquid import HyperliquidPerpAdapter
from mdp_core.fill.pages import adjacent_runs, plan
from mdp_core.ratelimit.tariff import Terms

GRID = epoch_grid(Interval.ONE_MINUTE)
PAGE = 499
FIRST_PAGE = 50_000
START = GRID.at(FIRST_PAGE * PAGE)


def slots(first: int, stop: int) -> Window:
    """Give a window by slots counted from where a page begins."""
    base = FIRST_PAGE * PAGE
    return Window(GRID.at(base + first), GRID.at(base + stop))


def watermarks(begins: int, earliest: int, closed: int) -> Watermarks:
    """Give watermarks by slots from a page's start; everything closed is final."""
    base = FIRST_PAGE * PAGE
    closed_at = GRID.at(base + closed)
    return Watermarks(
        GRID.at(base + begins), GRID.at(base + earliest), closed_at, closed_at, closed_at
    )


def terms_of(kind: type[BinanceFuturesAdapter | HyperliquidPerpAdapter], page: int = PAGE) -> Terms:
    tariff = kind.facts.tariff
    return Terms(page, kind.facts.pages_per_request, tariff.weigh, tariff.per_second)


BINANCE = terms_of(BinanceFuturesAdapter)
HYPERLIQUID = terms_of(HyperliquidPerpAdapter)
FAR = watermarks(-10 * PAGE, -10 * PAGE, 100 * PAGE)


@pytest.mark.parametrize(
    ("window", "missing", "expected"),
    [
        pytest.param(slots(0, 998), [slots(0, 998)], Estimate(998, 998, 2, 2, 4.0), id="cold"),
        pytest.param(slots(0, 998), [], Estimate(998, 0, 0, 0, 0.0), id="all there"),
        pytest.param(slots(0, 998), [slots(5, 7)], Estimate(998, 2, 1, 1, 1.0), id="two candles"),
        pytest.param(
            slots(100, 110), [slots(0, PAGE)], Estimate(10, 10, 1, 1, 2.0), id="grows to its page"
        ),
        pytest.param(
            slots(0, PAGE),
            [slots(0, 1), slots(498, 499)],
            Estimate(PAGE, 2, 1, 1, 2.0),
            id="hull of what a page lacks",
        ),
        pytest.param(slots(-20 * PAGE, -15 * PAGE), [], Estimate(), id="before history"),
    ],
)
def test_pages_and_weight_are_those_of_the_fill(
    window: Window, missing: list[Window], expected: Estimate
) -> None:
    """Only pages that lack something count, each with the hull of what it lacks."""
    found = estimate(window, missing, GRID, FAR, BINANCE)

    assert (found.slots, found.candles, found.pages) == (
        expected.slots,
        expected.candles,
        expected.pages,
    )
    assert (found.requests, found.weight) == (expected.requests, expected.weight)
    assert found.seconds == pytest.approx(expected.weight / 36)


def test_adjacent_pages_share_a_request_where_they_may() -> None:
    """Eleven adjacent pages, ten a request: two requests, 20 + 1 per 60."""
    window = slots(0, 11 * PAGE)
    found = estimate(window, [window], GRID, FAR, HYPERLIQUID)

    assert (found.pages, found.requests) == (11, 2)
    assert found.weight == (20 + 10 * PAGE // 60) + (20 + PAGE // 60)


def test_what_is_forgotten_is_no_part_of_the_estimate() -> None:
    """Neither fetched nor counted as cached: of the rest half is there."""
    window, missing = slots(0, 4 * PAGE), [slots(0, 3 * PAGE)]
    found = estimate(window, missing, GRID, watermarks(0, 2 * PAGE, 4 * PAGE), BINANCE)

    assert (found.slots, found.candles, found.pages) == (2 * PAGE, PAGE, 1)
    assert found.cached_share == 0.5


def test_estimate_of_two_is_the_sum_and_the_queue_is_waited_for() -> None:
    """Weights add up; what is queued ahead costs time and nothing else."""
    one = estimate(slots(0, PAGE), [slots(0, PAGE)], GRID, FAR, BINANCE)
    both = one + one

    assert (both.pages, both.weight, both.candles) == (2, 4.0, 2 * PAGE)
    assert one.behind(360, BINANCE).seconds == pytest.approx(one.seconds + 10)
    assert one.behind(360, BINANCE).weight == one.weight
    assert Estimate().cached_share == 1.0


gaps = st.lists(st.integers(-2000, 4000), min_size=2, max_size=12, unique=True).map(
    lambda edges: [
        slots(*pair) for pair in zip(sorted(edges)[::2], sorted(edges)[1::2], strict=False)
    ]
)


@pytest.mark.parametrize("terms", [BINANCE, HYPERLIQUID])
@given(
    missing=gaps,
    window=st.tuples(st.integers(-2500, 4500), st.integers(0, 3000)),
    edges=st.tuples(st.integers(-2500, 1000), st.integers(0, 2000), st.integers(0, 4000)),
    pages=st.integers(1, 30),
)
def test_estimate_is_what_counting_every_page_gives(
    terms: Terms,
    missing: list[Window],
    window: tuple[int, int],
    edges: tuple[int, int, int],
    pages: int,
) -> None:
    """As the planner makes them: each wanted page, in requests of neighbours."""
    size = PAGE // pages
    terms = replace(terms, page_size=size)
    asked = slots(window[0], sum(window))
    within = watermarks(edges[0], sum(edges[:2]), sum(edges))
    lies_in = plan([asked.clip(within.history_start, within.closed_until)], GRID, size, within)
    around = hull([page.window for page in lies_in]) if lies_in else Window(START, START)
    known = asked.clip(within.history_start, within.closed_until)
    both = Window(min(known.start, around.start), max(known.end, around.end)) if lies_in else known
    missing = intersect(missing, both)
    wanted = intersect(missing, known.clip(within.retention_start, within.closed_until))
    counted = plan(wanted, GRID, size, within)
    requests = adjacent_runs(counted, terms.pages_per_request)
    lacking = [intersect(missing, hull([page.window for page in run])) for run in requests]
    weights = [
        terms.request_weight(GRID.count(hull(entry).start, hull(entry).end)) for entry in lacking
    ]
    found = estimate(asked, missing, GRID, within, terms)

    assert (found.pages, found.requests) == (len(counted), len(requests))
    assert found.weight == sum(weights)
    if lies_in:
        assert page_hull(known, GRID, size, within) == around


def test_estimate_of_decades_takes_no_time() -> None:
    """A hundred thousand pages are counted as fast as one: the loop is not held."""
    first, stop = slots(-40_000 * PAGE, 0), slots(10, 60_000 * PAGE)
    within = watermarks(-40_000 * PAGE, -40_000 * PAGE, 60_000 * PAGE)
    calls = itertools.count()

    def count(*_: object) -> None:
        next(calls)

    sys.setprofile(count)
    try:
        found = estimate(Window(first.start, stop.end), [first, stop], GRID, within, BINANCE)
    finally:
        sys.setprofile(None)

    assert (found.pages, found.weight) == (100_000, 200_000.0)
    assert next(calls) < 10_000


@pytest.mark.parametrize("order", [oldest_first, newest_first, Apart()])
@given(gaps=gaps, pages=st.integers(1, 4))
def test_chunks_cover_every_gap_once(order: Order, gaps: list[Window], pages: int) -> None:
    """In any order: each chunk is new, in a gap, of whole pages; none is left."""
    chunks, left = ChunkGrid(GRID, PAGE, pages), gaps
    while left:
        chunk = order(left, chunks)
        inside = [gap for gap in left if gap.start <= chunk.start and chunk.end <= gap.end]
        first, last = GRID.index(chunk.start) // PAGE, (GRID.index(chunk.end) - 1) // PAGE

        assert len(inside) == 1
        assert not chunk.is_empty
        assert last - first < pages
        assert chunk.end == inside[0].end or GRID.index(chunk.end) % PAGE == 0
        assert chunk.start == inside[0].start or GRID.index(chunk.start) % PAGE == 0
        left = subtract(left, [chunk])


def test_oldest_and_newest_come_first() -> None:
    """One goes forward from the history start, the other back from the end."""
    chunks, left = ChunkGrid(GRID, PAGE, 1), [slots(10, 600), slots(700, 1200)]

    assert oldest_first(left, chunks) == slots(10, PAGE)
    assert newest_first(left, chunks) == slots(2 * PAGE, 1200)


def test_worker_goes_on_where_it_was_until_it_meets_another() -> None:
    """The chunk after its last one is taken as long as it is missing."""
    chunks, order = ChunkGrid(GRID, PAGE, 2), Apart()
    left = [slots(0, 100 * PAGE)]
    first = order(left, chunks)
    left = subtract(left, [first])
    following = order(left, chunks) if first.end < left[-1].end else None

    assert following is None or following.start == first.end


def test_two_workers_begin_apart() -> None:
    """Of many chunks two workers hardly ever choose the same."""
    chunks, left = ChunkGrid(GRID, PAGE, 1), [slots(0, 1000 * PAGE)]
    chosen = {Apart()(left, chunks) for _ in range(20)}

    assert len(chosen) > 15


def test_times_are_utc() -> None:
    """The page that the tests count from is in 2017, a time with nothing odd about it."""
    assert utc(2017) < START < utc(2018)
    assert START - GRID.at(0) == timedelta(minutes=FIRST_PAGE * PAGE)
