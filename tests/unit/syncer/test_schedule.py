"""When runs are due, and what warming asks for."""

from datetime import UTC, datetime, timedelta

import pytest
from support.strategies import utc

from mdp_core.domain.clock import Clock
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.series import Series, Symbol
from mdp_core.domain.watermarks import Watermarks
from mdp_core.domain.windows import Window
from mdp_core.errors import ExchangeUnavailable, InvalidParameter
from mdp_core.exchanges.binance import BinanceFuturesAdapter
from mdp_core.series.selection import Selection, parse_selections
from syncer.schedule import Schedule, ScheduleTrigger
from syncer.scheduled_jobs import retry_refresh
from syncer.warm import Due, to_extend, within

MINUTE = timedelta(minutes=1)
SETTLE = timedelta(seconds=2)
REAL = Clock()
GRID = epoch_grid(Interval.ONE_MINUTE)
PAGE = 499
BTC = Symbol("binance", "perp", "BTC-USDT", "BTCUSDT", "BTC", "USDT", active=True)
SERIES = Series(1, BTC, Interval.ONE_MINUTE, GRID, utc(2015))


def noon(minutes: int = 0, seconds: int = 0) -> datetime:
    """Give a time soon after noon of the tests' day, or before."""
    return datetime(2024, 5, 1, 12, tzinfo=UTC) + timedelta(minutes=minutes, seconds=seconds)


@pytest.mark.parametrize(
    ("now", "due", "following"),
    [
        (noon(0, 3), noon(), noon(1, 2)),
        (noon(0, 1), noon(-1), noon(0, 2)),
        (noon(0, 2), noon(), noon(1, 2)),
    ],
)
def test_run_is_due_at_the_minute_and_started_after_the_delay(
    now: datetime, due: datetime, following: datetime
) -> None:
    """Whenever a syncer looks, it names the run as all others do."""
    schedule = Schedule(MINUTE, REAL, SETTLE)

    assert schedule.last_due(now) == due
    assert schedule.next_start(now) == following


def test_trigger_does_not_drift_and_adds_the_jitter_alone() -> None:
    """A start late by the jitter is followed by one in the next minute, never sooner."""
    trigger, start = ScheduleTrigger(Schedule(MINUTE, REAL, SETTLE), 0.5), noon(0, 2)
    starts = [start]
    for _ in range(20):
        starts.append(trigger.get_next_fire_time(starts[-1], starts[-1]))
    lateness = [entry - (start + place * MINUTE) for place, entry in enumerate(starts)]

    assert all(timedelta(0) <= late <= timedelta(seconds=0.5) for late in lateness)
    assert len(set(lateness)) > 5


def test_clock_that_was_set_elsewhere_makes_runs_due_by_its_own_time() -> None:
    """Its minute is over when it shows so; the run is named by the real time of that."""
    clock = Clock(shown=utc(2020), since=noon(0, 30), speed=2.0)
    schedule = Schedule(MINUTE, clock)

    assert schedule.last_due(noon(0, 40)) == noon(0, 30)
    assert schedule.next_start(noon(0, 40)) == noon(1)


def test_fast_clock_makes_nothing_due_more_often_than_every_second() -> None:
    """At ten thousand times the speed a minute lasts 6 ms; runs are a second apart."""
    schedule = Schedule(MINUTE, Clock(shown=utc(2020), since=noon(), speed=10_000.0))
    now = noon(1)

    assert schedule.next_start(now) - schedule.last_due(now) == timedelta(seconds=1)


NOW = GRID.at(50_000 * PAGE + 100)
PAGE_START = GRID.at(50_000 * PAGE)


@pytest.mark.parametrize(
    ("covered_until", "expected"),
    [
        pytest.param(None, Window(PAGE_START, NOW), id="nothing yet: the newest page"),
        pytest.param(GRID.at(50_000 * PAGE + 99), Window(NOW - MINUTE, NOW), id="one candle"),
        pytest.param(GRID.at(50_000 * PAGE), Window(PAGE_START, NOW), id="up to the page"),
        pytest.param(GRID.at(49_999 * PAGE), Window(PAGE_START, NOW), id="an older hole stays"),
        pytest.param(NOW, Window(NOW, NOW), id="warm"),
    ],
)
def test_warming_extends_what_reaches_into_the_newest_page(
    covered_until: datetime | None, expected: Window
) -> None:
    """From the end of coverage, else from where the newest page begins; never more."""
    watermarks = Watermarks(utc(2015), utc(2015), NOW, NOW + MINUTE, NOW)

    assert to_extend(SERIES, watermarks, PAGE, covered_until) == expected


def test_page_that_has_just_been_completed_is_the_newest_one() -> None:
    """Right at a page's end its last candle is asked for, and not the next page."""
    end = GRID.at(50_001 * PAGE)
    watermarks = Watermarks(utc(2015), utc(2015), end, end, end)

    assert to_extend(SERIES, watermarks, PAGE, end - MINUTE) == Window(end - MINUTE, end)


@pytest.mark.parametrize(
    ("covered_until", "expected_start"),
    [
        pytest.param(GRID.at(50_000 * PAGE - 3), GRID.at(50_000 * PAGE - 3), id="no hole is left"),
        pytest.param(GRID.at(49_999 * PAGE), GRID.at(50_000 * PAGE), id="an older hole stays"),
        pytest.param(None, GRID.at(50_000 * PAGE), id="nothing yet: the newest page"),
    ],
)
def test_what_was_merely_late_is_asked_for_in_the_next_page_too(
    covered_until: datetime | None, expected_start: datetime
) -> None:
    """A sparse series' coverage stops at an absent slot, or at a page's end."""
    end = GRID.at(50_000 * PAGE + 1)
    watermarks = Watermarks(utc(2015), utc(2015), end, end, end - 5 * MINUTE)

    assert to_extend(SERIES, watermarks, PAGE, covered_until) == Window(expected_start, end)


@pytest.mark.parametrize(("failures", "is_had"), [(0, True), (2, True), (3, False)])
async def test_what_fails_is_asked_for_again(failures: int, *, is_had: bool) -> None:
    """As often as there are waits."""
    left = [ExchangeUnavailable("binance", "away")] * failures

    async def ask() -> str:
        if left:
            raise left.pop()
        return "symbols"

    if is_had:
        assert await retry_refresh(ask, [0.0, 0.0]) == "symbols"
    else:
        with pytest.raises(ExchangeUnavailable):
            await retry_refresh(ask, [0.0, 0.0])


def test_what_there_is_no_budget_for_waits() -> None:
    """The series requested last are extended first; none overtakes one that waits."""
    due = [Due(SERIES, Window(NOW, NOW), weight) for weight in (20, 20, 30, 1)]

    assert within(due, 40) == due[:2]
    assert within(due, 69) == due[:2]
    assert within(due, 71) == due
    assert within(due, 10) == []


def test_selections_are_read() -> None:
    """Several, separated by spaces or semicolons; names by commas."""
    text = "hyperliquid:*:1m,1h; binance:BTC-USDT,1000*:1m"

    assert parse_selections(text) == (
        Selection("hyperliquid", None, ("*",), ("1m", "1h")),
        Selection("binance", None, ("BTC-USDT", "1000*"), ("1m",)),
    )
    assert parse_selections("") == ()


@pytest.mark.parametrize("text", ["binance", "binance:BTC-USDT", "binance:*:", "a:b:c:d"])
def test_selection_of_another_form_is_refused(text: str) -> None:
    """It says how to write one."""
    with pytest.raises(InvalidParameter, match="EXCHANGE:SYMBOLS:INTERVALS"):
        parse_selections(text)


def test_one_candle_of_binance_weighs_one() -> None:
    """Warming is as cheap as it can be."""
    assert BinanceFuturesAdapter.facts.tariff.weigh(1) == 1
