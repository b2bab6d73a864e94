"""Upgrade a database that an earlier version filled, with false facts among true."""

from typing import Any

import psycopg
import pytest
from psycopg import errors
from support.migrations import downgrade

from db.upgrade import upgrade

pytestmark = pytest.mark.every_kind_of_database

_BEFORE = "0003"
_CATALOG = """
INSERT INTO exchanges (code, name) VALUES ('binance', 'Binance');
INSERT INTO supported_intervals (exchange, market_type, interval, native, grid) VALUES
    ('binance', 'perp', '1h', '1h', '{"step_ms": 3600000, "phase_ms": 0}'),
    ('binance', 'perp', '3d', '3d', '{"step_ms": 259200000, "phase_ms": 0}'),
    ('binance', 'perp', '1M', '1M', '{"unit": "month"}');
INSERT INTO symbols (exchange, market_type, name, native, base, quote, multiplier, active)
VALUES ('binance', 'perp', 'BTC-USDT', 'BTCUSDT', 'BTC', 'USDT', 1, true)
"""
_SERIES = """
INSERT INTO series (symbol_id, interval, grid_phase_ms, coverage)
SELECT id, %(interval)s, %(phase)s, %(coverage)s::tstzmultirange FROM symbols RETURNING id
"""
_CANDLE = "INSERT INTO candles VALUES (%s, %s::timestamptz, 1, 1, 1, 1, 1)"
_JOB = """
INSERT INTO backfills (series_id, span, state, missing)
VALUES (%s, '[2024-01-01Z, 2024-02-01Z)', 'failed', %s::jsonb) RETURNING id
"""


@pytest.fixture
def old(database_url: str, database: psycopg.Connection) -> psycopg.Connection:
    """A database as version 0.1 left it, with a symbol and no series."""
    downgrade(database_url, _BEFORE)
    database.execute(_CATALOG)
    return database


@pytest.mark.parametrize(
    ("interval", "phase", "is_open_time"),
    [
        ("1h", 0, "extract(minute FROM {0}) = 0"),
        ("3d", 86_400_000, "mod(extract(epoch FROM {0})::bigint - 86400, 259200) = 0"),
        ("1M", None, "extract(day FROM {0} AT TIME ZONE 'UTC') = 1"),
    ],
)
def test_coverage_beyond_now_is_cut_at_the_forming_slot(
    database_url: str, old: psycopg.Connection, interval: str, phase: int | None, is_open_time: str
) -> None:
    """The forming candle and later ones go; the cut is an open time and is recorded."""
    future = _value(old, "SELECT '{[2024-01-01Z,' || now() + interval '90 days' || ')}'")
    series = _value(old, _SERIES, {"interval": interval, "phase": phase, "coverage": future})
    for time in ("2024-06-01Z", _value(old, "SELECT now() + interval '60 days'")):
        old.execute(_CANDLE, [series, time])
    upgrade(database_url)

    facts = "SELECT upper(coverage) <= now(), lower(coverage) = '2024-01-01Z', epoch FROM series"
    assert _row(old, facts) == (True, True, 1)
    grid = is_open_time.format("upper(coverage)")
    assert _value(old, f"SELECT {grid} FROM series")  # noqa: S608 - of this file only
    assert _row(old, "SELECT count(*), max(time) < now() FROM candles") == (1, True)
    touched = "SELECT series_id, lower(slots) = upper(coverage), changes.epoch FROM changes"
    assert _row(old, f"{touched} JOIN series ON id = series_id") == (series, True, 1)


def test_coverage_without_end_is_cut_too(database_url: str, old: psycopg.Connection) -> None:
    """An unbounded window is a false fact as well, and no later version may hold one."""
    params = {"interval": "1h", "phase": 0, "coverage": "{[2024-01-01Z,)}"}
    _value(old, _SERIES, params)
    upgrade(database_url)

    assert _row(old, "SELECT upper(coverage) <= now(), epoch FROM series") == (True, 1)
    assert _row(old, "SELECT upper(slots) > now() FROM changes") == (True,)
    with pytest.raises(errors.CheckViolation):
        old.execute("UPDATE series SET coverage = '{[2024-01-01Z,)}'")


def test_true_facts_stay(database_url: str, old: psycopg.Connection) -> None:
    """Settled coverage, candles, rejected rows, absent slots are unchanged: confirmed."""
    covered = "{[2024-01-01Z,2024-02-01Z)}"
    series = _value(old, _SERIES, {"interval": "1h", "phase": 0, "coverage": covered})
    old.execute(_CANDLE, [series, "2024-01-05Z"])
    old.execute(
        "INSERT INTO rejected_rows (series_id, slot, row, reason) VALUES (%s, now(), 'x', 'y')",
        [series],
    )
    upgrade(database_url)

    kept = "SELECT coverage = %s::tstzmultirange, epoch FROM series"
    assert old.execute(kept, [covered]).fetchone() == (True, 0)
    counts = "SELECT (SELECT count(*) FROM {}), (SELECT count(*) FROM {})"
    assert _row(old, counts.format("candles", "rejected_rows")) == (1, 1)
    assert _row(old, counts.format("changes", "absences")) == (0, 0)


def test_names_of_errors_become_codes_and_names_again(
    database_url: str, old: psycopg.Connection
) -> None:
    """Jobs have a stable code, whatever the classes are called; the oldest have none."""
    series = _value(old, _SERIES, {"interval": "1h", "phase": 0, "coverage": "{}"})
    known = '{"start": 1, "end": 2, "error": "ExchangeRejected", "reason": "a"}'
    unnamed = '{"start": 2, "end": 3, "reason": "b"}'
    odd = '{"start": 3, "end": 4, "error": "Gone", "reason": "c"}'
    _value(old, _JOB, [series, f"[{known}, {unnamed}, {odd}]"])
    untouched = _value(old, _JOB, [series, "[]"])
    upgrade(database_url)

    assert _errors(old) == ["upstream_rejected", "upstream_bad_data", "internal_error"]
    assert _value(old, "SELECT missing FROM backfills WHERE id = %s", [untouched]) == []
    downgrade(database_url, _BEFORE)
    assert _errors(old) == ["ExchangeRejected", "BadRows", "MdpError"]


def test_every_table_has_a_comment(database: psycopg.Connection) -> None:
    """A reader of the database finds what each table holds."""
    without = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    AND obj_description(oid, 'pg_class') IS NULL AND relname <> 'alembic_version'
    """
    assert database.execute(without).fetchall() == []


def test_store_has_one_number(database: psycopg.Connection) -> None:
    """Versions begin with it; it fits a JSON number of every language."""
    number = _value(database, "SELECT id FROM store")
    assert 0 <= number < 2**53


def _errors(database: psycopg.Connection) -> list[str]:
    listed = _value(database, "SELECT missing FROM backfills ORDER BY id LIMIT 1")
    return [loss["error"] for loss in listed]


def _row(database: psycopg.Connection, query: str) -> tuple[Any, ...] | None:
    return database.execute(query.encode()).fetchone()


def _value(database: psycopg.Connection, query: str, parameters: Any = None) -> Any:  # noqa: ANN401 - whatever the query gives
    row = database.execute(query.encode(), parameters).fetchone()
    assert row
    return row[0]


def test_restored_store_gets_another_number(
    database_url: str, database: psycopg.Connection
) -> None:
    """An ordinary upgrade keeps it: it is part of each version that clients have."""
    first = _value(database, "SELECT id FROM store")
    upgrade(database_url)
    same = _value(database, "SELECT id FROM store")
    upgrade(database_url, is_restored=True)
    other = _value(database, "SELECT id FROM store")

    assert first == same != other
    assert _value(database, "SELECT count(*) FROM store") == 1
    assert 0 <= other < 2**53
