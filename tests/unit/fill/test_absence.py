"""Which absent slots are facts at once, and how the others are asked for again."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from support.strategies import MINUTES, a_row, candles_of, utc, window_of

from mdp_core.domain.candles import RejectedRow
from mdp_core.domain.intervals import Int64s
from mdp_core.exchanges.validation import Observation
from mdp_core.fill.absence import (
    Evidence,
    Reach,
    RecheckPlan,
    absent_slots,
    asked_together,
    confirmed_slots,
    runs_of,
    second_looks,
    witnessed_slots,
)

LONG_AGO = MINUTES.index(utc(2024, 6, 10))
NOW = MINUTES.at(LONG_AGO + 10_000)
AN_HOUR_AGO = MINUTES.index(NOW - timedelta(hours=1))


def observed(
    first: int, stop: int, present: Iterable[int], *, wrong: Sequence[int] = (), **odd: bool
) -> Observation:
    """Build an answer to a window of minutes with rows for some of them."""
    rows = candles_of([a_row(int(MINUTES.times(slot, slot + 1)[0])) for slot in present])
    rejected = [RejectedRow(MINUTES.at(slot), "", "") for slot in wrong]
    how = {"is_live": True, "has_strays": False, **odd}
    return Observation(window_of(MINUTES, first, stop), rows, rejected, **how)


def page(*absent: range, first: int = LONG_AGO, size: int = 300) -> Observation:
    """Build an answer of many slots, without those at some places."""
    gone = {first + place for run in absent for place in run}
    return observed(first, first + size, [s for s in range(first, first + size) if s not in gone])


def places(slots: Int64s, first: int = LONG_AGO) -> list[int]:
    return (slots - first).tolist()


def confirmed(observation: Observation, **evidence: object) -> list[int]:
    """Tell which of the absent slots of an answer are facts, as places in its window."""
    first = MINUTES.index(observation.window.start)
    absent = absent_slots([observation], MINUTES, observation.window)
    rules = Evidence(**{"fills_empty_intervals": False, "now": NOW, **evidence})  # pyright: ignore[reportArgumentType]
    return places(confirmed_slots(absent, [observation], MINUTES, rules), first)


# --- (a) where not every interval is published ----------------------------------------------------


@pytest.mark.parametrize(
    ("absent", "facts"),
    [
        pytest.param([range(5, 6)], [5], id="one between two rows"),
        pytest.param([range(10, 250)], list(range(10, 250)), id="a long run between two rows"),
        pytest.param([range(30)], list(range(30)), id="thirty at the start"),
        pytest.param([range(31)], [], id="thirty-one at the start"),
        pytest.param([range(270, 300)], list(range(270, 300)), id="thirty at the end"),
        pytest.param([range(269, 300)], [], id="thirty-one at the end"),
        pytest.param([range(31), range(100, 102), range(299, 300)], [100, 101, 299], id="mixed"),
    ],
)
def test_quiet_slots_of_a_sparse_exchange_are_facts(absent: list[range], facts: list[int]) -> None:
    """Between two rows, or in a short run at an edge."""
    assert confirmed(page(*absent)) == facts


@pytest.mark.parametrize(("size", "longest"), [(20, 2), (100, 10), (300, 30), (1000, 30)])
def test_run_at_an_edge_is_at_most_a_tenth_of_the_answer(size: int, longest: int) -> None:
    """A small answer of which half is absent may be half an answer."""
    assert confirmed(page(range(longest), size=size)) == list(range(longest))
    assert confirmed(page(range(longest + 1), size=size)) == []


def test_run_at_an_edge_has_closed_more_than_an_hour_ago() -> None:
    """A slot closed since may still be published."""
    first = AN_HOUR_AGO - 300
    assert confirmed(page(range(298, 300), first=first)) == [298, 299]
    assert confirmed(page(range(298, 300), first=first + 1)) == []
    assert confirmed(page(range(5, 6), first=first + 60)) == [5]


def test_empty_answer_confirms_nothing() -> None:
    """Not even where a canary says that the exchange answers."""
    assert confirmed(page(range(300))) == []
    assert confirmed(page(range(5), size=5)) == []


def test_slot_with_a_wrong_row_is_not_absent() -> None:
    """Something was traded there."""
    answer = observed(LONG_AGO, LONG_AGO + 10, [LONG_AGO, LONG_AGO + 9], wrong=[LONG_AGO + 4])

    absent = absent_slots([answer], MINUTES, answer.window)

    assert places(absent) == [1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("odd", [{"is_live": False}, {"has_strays": True}])
def test_answer_that_is_no_witness_confirms_nothing(odd: dict[str, bool]) -> None:
    """An answer with rows from elsewhere lacks others."""
    answer = replace(page(range(5, 6), size=10), **odd)

    assert confirmed(answer) == []


def test_exchange_that_publishes_every_interval_has_no_quiet_slots() -> None:
    """A hole is odd there, wherever it lies."""
    assert confirmed(page(range(5, 6), range(299, 300)), fills_empty_intervals=True) == []


# --- (b) and (c) ----------------------------------------------------------------------------------


def test_slots_after_the_history_end_are_facts() -> None:
    """Up to what was closed at the request for the end; earlier slots are in doubt."""
    ended = window_of(MINUTES, LONG_AGO + 100, LONG_AGO + 290)

    facts = confirmed(page(range(50, 300)), fills_empty_intervals=True, ended=ended)

    assert facts == list(range(100, 290))


def test_slots_that_a_believed_archive_lacks_too_are_facts() -> None:
    """A file and a live answer are two witnesses; a silent exchange is none."""
    unarchived = np.arange(LONG_AGO + 5, LONG_AGO + 8)
    told = {"fills_empty_intervals": True, "unarchived": unarchived}

    assert confirmed(page(range(4, 10)), **told) == [5, 6, 7]
    assert confirmed(observed(LONG_AGO, LONG_AGO + 9, [], is_live=False), **told) == []


# --- the second look ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("doubtful", "width", "looks"),
    [
        pytest.param((10, 20), 100, [(9, 21)], id="with a neighbour on either side"),
        pytest.param((1, 99), 100, [(0, 99)], id="with one, where two make the same width"),
        pytest.param((0, 100), 100, [(-1, 101)], id="wider"),
        pytest.param((0, 499), 499, [(0, 249), (249, 499)], id="in halves, where that is too wide"),
        pytest.param((5, 6), 1, [(4, 7)], id="one slot"),
    ],
)
def test_second_look_has_another_width(
    doubtful: tuple[int, int], width: int, looks: list[tuple[int, int]]
) -> None:
    """Spurious empties depend on width; a known row beside the slots tells of life."""
    reach = Reach(window_of(MINUTES, LONG_AGO - 1000, LONG_AGO + 1000), most=499)

    windows = second_looks(np.arange(*doubtful) + LONG_AGO, width, MINUTES, reach)

    assert windows == [window_of(MINUTES, LONG_AGO + a, LONG_AGO + b) for a, b in looks]
    assert all(MINUTES.count(window.start, window.end) != width for window in windows)


def test_second_look_stays_within_what_can_be_asked_for() -> None:
    """Neither before the history start nor into what still forms."""
    reach = Reach(window_of(MINUTES, LONG_AGO, LONG_AGO + 10), most=300, margin=15)

    (window,) = second_looks(np.array([LONG_AGO + 3]), 6, MINUTES, reach)

    assert window == window_of(MINUTES, LONG_AGO, LONG_AGO + 10)


def test_only_live_looks_witness() -> None:
    """A silent exchange's missing answer proves nothing."""
    absent = np.arange(LONG_AGO, LONG_AGO + 20)
    looks = [
        observed(LONG_AGO, LONG_AGO + 5, []),
        observed(LONG_AGO + 5, LONG_AGO + 15, [], is_live=False),
        observed(LONG_AGO + 12, LONG_AGO + 18, [LONG_AGO + 17], has_strays=True),
    ]

    assert places(witnessed_slots(absent, looks, MINUTES)) == [0, 1, 2, 3, 4, *range(12, 18)]


def test_neighbours_are_one_run() -> None:
    """Windows follow each other without touching."""
    slots = np.array([3, 4, 5, 7, 9, 10])

    windows = [window_of(MINUTES, 3, 6), window_of(MINUTES, 7, 8), window_of(MINUTES, 9, 11)]
    assert runs_of(slots, MINUTES) == windows
    assert runs_of(slots[:0], MINUTES) == []


# --- rechecks -------------------------------------------------------------------------------------


TWICE = [timedelta(seconds=30), timedelta(minutes=10)]


def next_due(passed: int, *, slot: int = 0, memory: int | None = None) -> int | None:
    """Tell the age in seconds at which a slot of the last hour is rechecked next."""
    window = window_of(MINUTES, AN_HOUR_AGO + slot, AN_HOUR_AGO + slot + 5)
    now = NOW + timedelta(seconds=passed)
    due = RecheckPlan(TWICE, memory).next_due(window, MINUTES, NOW, now)
    return None if due is None else int((due - NOW).total_seconds())


@pytest.mark.parametrize(
    ("passed", "due"),
    [(0, 30), (29, 30), (30, 600), (31, 600), (599, 600), (600, None), (86_400, None)],
)
def test_recheck_stands_for_all_that_were_due_before_it(passed: int, due: int | None) -> None:
    """A syncer away for an hour asks once, and goes on with what is due after."""
    assert next_due(passed) == due


@pytest.mark.parametrize(
    ("passed", "due"),
    [(0, 30), (30, 120), (120, 300), (300, 600), (600, None)],
)
def test_slot_that_leaves_the_retention_is_asked_for_before(passed: int, due: int | None) -> None:
    """Three slots before, and when it has left; of a run the first slot counts."""
    assert next_due(passed, slot=0, memory=66) == due


def weigh(slots: int) -> float:
    """Weigh as Binance does, on a smaller scale."""
    return 1 if slots < 100 else 2


@pytest.mark.parametrize(
    ("windows", "hulls"),
    [
        pytest.param([(0, 1), (50, 51)], [(0, 51)], id="near ones"),
        pytest.param([(0, 1), (150, 151)], [(0, 151)], id="as dear together as apart"),
        pytest.param([(0, 1), (150, 151), (199, 200)], [(0, 200)], id="a third comes free"),
        pytest.param([(0, 1), (400, 401)], [(0, 1), (400, 401)], id="too far for one request"),
        pytest.param([(0, 700)], [(0, 300), (300, 600), (600, 700)], id="a long one"),
        pytest.param([(0, 1), (10, 400)], [(0, 1), (10, 310), (310, 400)], id="no room"),
    ],
)
def test_neighbours_are_asked_for_together_where_that_costs_no_more(
    windows: list[tuple[int, int]], hulls: list[tuple[int, int]]
) -> None:
    """One request for some slots too many is cheaper than two."""
    given = [window_of(MINUTES, *window) for window in windows]

    found = asked_together(given, MINUTES, weigh, 300)

    assert found == [window_of(MINUTES, *hull) for hull in hulls]
