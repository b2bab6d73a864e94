"""Repair: the store becomes what the exchange says twice; once deletes nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from support.asking import answer_to
from support.sandbox import MINUTE_MS, Sandbox

from mdp_core.domain.clock import to_ms
from mdp_core.domain.queries import CandleQuery
from mdp_core.errors import InvalidWindow
from mdp_core.service.mending import Mender, RepairMode, RepairReport
from mdp_core.service.repair import Repair
from mdp_core.service.stored_pages import PageComparer
from mdp_core.wiring import Services

_START = datetime(2024, 5, 1, tzinfo=UTC)
_HOURS = CandleQuery(
    *("binance", "perp", "BTC-USDT", "1m"), start=_START, end=_START + timedelta(hours=9)
)
_ROWS = 2 * 499
_COINBASE = CandleQuery(
    *("coinbase", "spot", "BTC-USD", "1m"), start=_START, end=_START + timedelta(hours=5)
)
_EVERYTHING = CandleQuery("binance", "perp", "BTC-USDT", "1m")
_DIFFER = "UPDATE candles SET close = high WHERE time = '2024-05-01 05:00Z'"
_DELETE = "DELETE FROM candles WHERE time = '2024-05-01 05:00Z'"
_ALL = "SELECT * FROM candles ORDER BY series_id, time"
_CHANGES = "SELECT lower(slots), upper(slots), changes.epoch, series.epoch FROM changes, series"


@pytest.fixture
def repair(services: Services) -> Repair:
    """A repair that does not wait between two observations."""
    comparer = PageComparer(services.store, services.resolver, services.markets)
    return Repair(comparer, Mender(services.store, pause_seconds=0))


@pytest.fixture
async def stored(
    services: Services, database: psycopg.Connection
) -> Callable[[], list[tuple[Any, ...]]]:
    """Two pages of one-minute candles; reads what is stored now."""
    await answer_to(services, _HOURS)
    assert len(database.execute(_ALL).fetchall()) == _ROWS
    return lambda: database.execute(_ALL).fetchall()


Stored = Callable[[], list[tuple[Any, ...]]]


async def test_changed_and_deleted_candles_come_back(
    repair: Repair, stored: Stored, database: psycopg.Connection
) -> None:
    """Each is counted by kind, its old value is stored, only its slot gets a version."""
    before = stored()
    database.execute(_DIFFER)
    first = await repair.repair(_EVERYTHING)
    database.execute(_DELETE)
    second = await repair.repair(_EVERYTHING)

    assert first == RepairReport(replaced=1)
    assert second == RepairReport(added=1)
    assert stored() == before
    noon = datetime(2024, 5, 1, 5, tzinfo=UTC)
    assert database.execute(_CHANGES).fetchall() == [(noon, noon + timedelta(minutes=1), 2, 2)]
    kept = database.execute(
        "SELECT time, (stored->>'close')::float8 = (answered->>'high')::float8,"
        " stored IS NULL, (answered->>'close')::float8, found_by FROM revisions ORDER BY id"
    ).fetchall()
    close = next(row[5] for row in before if row[1] == noon)
    assert kept == [(noon, True, False, close, "repair"), (noon, None, True, close, "repair")]


async def test_candle_that_the_exchange_has_not_goes_after_a_second_look(
    repair: Repair, services: Services, database: psycopg.Connection, sandbox: Sandbox
) -> None:
    """The second question has another width; the deleted candle becomes a revision."""
    await answer_to(services, _COINBASE)
    series = _value(database, "SELECT series_id FROM candles LIMIT 1")
    absent = _value(
        database,
        "SELECT slot FROM generate_series('2024-05-01Z'::timestamptz, '2024-05-01 04:59Z', '1 min')"
        " AS slot WHERE slot NOT IN (SELECT time FROM candles) ORDER BY slot LIMIT 1",
    )
    database.execute("INSERT INTO candles VALUES (%s, %s, 1, 1, 1, 1, 1)", [series, absent])
    sandbox.clear()
    report = await repair.repair(_COINBASE)
    asked = [_width(entry["params"]) for entry in sandbox.requests() if "start" in entry["params"]]

    assert report == RepairReport(deleted=1)
    assert len(asked) == 3  # two pages, and one again
    assert asked[-1] not in asked[:-1]
    deleted = "SELECT stored->>'close' FROM revisions WHERE answered IS NULL"
    assert _value(database, deleted) == "1.0"


@pytest.mark.parametrize("fault", ["empty_page", "short_page"])
async def test_page_that_would_lose_many_candles_is_kept(
    repair: Repair, stored: Stored, database: psycopg.Connection, sandbox: Sandbox, fault: str
) -> None:
    """However often the exchange says it."""
    before = stored()
    sandbox.fault(fault, times=100)
    report = await repair.repair(_EVERYTHING)

    assert (report.replaced, report.added, report.deleted) == (0, 0, 0)
    assert report.kept
    assert stored() == before
    assert database.execute("SELECT count(*) FROM changes").fetchone() == (0,)


async def test_force_lets_a_page_lose_many_candles(
    repair: Repair, stored: Stored, database: psycopg.Connection, sandbox: Sandbox
) -> None:
    """Rows that two full answers lack are deleted, all of them, and kept as revisions."""
    before = stored()
    sandbox.fault("short_page", times=100)
    report = await repair.repair(_EVERYTHING, RepairMode(force=True))

    assert report.deleted > 2 * _ROWS // 20
    assert len(stored()) == len(before) - report.deleted
    assert database.execute("SELECT count(*) FROM revisions").fetchone() == (report.deleted,)


@pytest.mark.parametrize("fault", ["empty_page", "wrong_window", "truncated_json"])
async def test_force_does_not_believe_an_answer_that_is_not_live(
    repair: Repair, stored: Stored, sandbox: Sandbox, fault: str
) -> None:
    """Silence, another question's answer and an unreadable body are no evidence."""
    before = stored()
    sandbox.fault(fault, times=100)
    report = await repair.repair(_EVERYTHING, RepairMode(force=True))

    assert report.deleted == 0
    assert len(report.kept) >= 2  # pages
    assert not any(page.yields_to_force for page in report.kept)
    assert stored() == before


async def test_silent_second_answer_confirms_nothing(
    repair: Repair, stored: Stored, sandbox: Sandbox
) -> None:
    """The first one lacks few candles; then the exchange falls silent."""
    before = stored()
    window = replace(_HOURS, end=_START + timedelta(minutes=14))
    sandbox.fault("short_page")
    sandbox.fault("empty_page", times=100)
    report = await repair.repair(window, RepairMode(force=True))

    assert "did not confirm 7" in report.kept[0].reason
    assert stored() == before


async def test_empty_answer_between_live_canaries_is_evidence(
    repair: Repair, services: Services, database: psycopg.Connection, sandbox: Sandbox
) -> None:
    """The exchange answers, and has nothing where one false candle is stored."""
    await answer_to(services, _COINBASE)
    before = database.execute(_ALL).fetchall()
    years_ago = datetime(2012, 5, 1, tzinfo=UTC)
    empty = replace(_COINBASE, start=years_ago, end=years_ago + timedelta(hours=5))
    await answer_to(services, empty)
    series = _value(database, "SELECT series_id FROM candles LIMIT 1")
    database.execute("INSERT INTO candles VALUES (%s, %s, 1, 1, 1, 1, 1)", [series, years_ago])
    sandbox.clear()
    report = await repair.repair(empty)
    asked = [entry["params"]["start"] for entry in sandbox.requests() if "start" in entry["params"]]

    assert report == RepairReport(deleted=1)
    assert database.execute(_ALL).fetchall() == before
    canaries = [start.startswith("2024") for start in asked]
    assert canaries[0] is False
    assert canaries[-1] is True
    assert canaries.count(True) >= 2  # one after each empty answer


async def test_two_answers_that_differ_change_nothing(
    repair: Repair, stored: Stored, sandbox: Sandbox
) -> None:
    """Few enough candles to lose, but the second answer has them."""
    before = stored()
    sandbox.fault("short_page", times=1)
    window = replace(_HOURS, end=_START + timedelta(minutes=14))
    report = await repair.repair(window)

    assert report.deleted == 0
    assert "did not confirm 7" in report.kept[0].reason
    assert stored() == before


async def test_dry_run_tells_and_changes_nothing(
    repair: Repair, stored: Stored, database: psycopg.Connection
) -> None:
    """The same counts as a repair, and the same rows as before."""
    database.execute(_DIFFER)
    spoiled = stored()
    report = await repair.repair(_EVERYTHING, RepairMode(dry_run=True))

    assert report == RepairReport(replaced=1)
    assert stored() == spoiled
    assert database.execute("SELECT count(*) FROM revisions").fetchone() == (0,)


async def test_null_that_the_exchange_fills_is_no_revision(
    repair: Repair, stored: Stored, database: psycopg.Connection
) -> None:
    """It is taken, and answers that hold it have a new version."""
    before = stored()
    database.execute("UPDATE candles SET quote_volume = NULL, trades = NULL")
    report = await repair.repair(_EVERYTHING)

    assert report == RepairReport(replaced=_ROWS)
    assert stored() == before
    assert database.execute("SELECT count(*) FROM revisions").fetchone() == (0,)
    assert [row[2:] for row in database.execute(_CHANGES)] != []


async def test_bad_row_keeps_its_slot_and_no_other(
    repair: Repair, stored: Stored, database: psycopg.Connection, sandbox: Sandbox
) -> None:
    """Pages that can be compared are repaired."""
    before = stored()
    database.execute(_DIFFER)
    sandbox.fault("ohlc_violation", times=1)
    report = await repair.repair(_EVERYTHING)

    assert (report.replaced, report.deleted) == (1, 0)
    assert "can't be right" in report.kept[0].reason
    assert stored() == before


async def test_repair_fills_unconfirmed_absences(
    repair: Repair, stored: Stored, database: psycopg.Connection
) -> None:
    """The slot whose candle was found is not asked for again; its neighbours are."""
    before = stored()
    database.execute(_DELETE)
    database.execute(
        "INSERT INTO absences (series_id, slots, next_due_at)"
        " SELECT id, '[2024-05-01 04:59Z, 2024-05-01 05:02Z)', now() FROM series"
    )
    report = await repair.repair(_EVERYTHING)

    assert report == RepairReport(added=1)
    assert stored() == before
    left = [
        (to_ms(row[0]), to_ms(row[1]))
        for row in database.execute(
            "SELECT lower(slots), upper(slots) FROM absences ORDER BY slots"
        )
    ]
    noon = to_ms(_START) + 300 * MINUTE_MS
    assert left == [(noon - MINUTE_MS, noon), (noon + MINUTE_MS, noon + 2 * MINUTE_MS)]


async def test_reversed_window_is_refused(repair: Repair) -> None:
    """Before anything is asked."""
    with pytest.raises(InvalidWindow):
        await repair.repair(replace(_HOURS, start=_HOURS.end, end=_HOURS.start))


def _width(params: dict[str, Any]) -> timedelta:
    bounds = [datetime.fromisoformat(params[name]) for name in ("start", "end")]
    return bounds[1] - bounds[0]


def _value(database: psycopg.Connection, query: str) -> Any:  # noqa: ANN401 - whatever the query gives
    row = database.execute(query.encode()).fetchone()
    assert row
    return row[0]
