"""Concurrent saves: each candle is stored once, none fails, no coverage is false."""

import asyncio
from datetime import datetime, timedelta

import numpy as np
import psycopg
import pytest
from support.sandbox import Sandbox
from support.services import opened_services
from support.waiting import eventually

from mdp_core.domain.candles import Candles, RejectedRow
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.windows import Window
from mdp_core.settings import Settings
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.wiring import Services

pytestmark = pytest.mark.every_kind_of_database

START = from_ms(1_709_251_200_000)
_PAGE = timedelta(minutes=499)
_MINUTE_MS = 60_000
_SLOT = timedelta(minutes=1)
_WRITERS = 8

_OUTSIDE_COVERAGE = """
SELECT count(*) FROM candles JOIN series ON series.id = series_id WHERE NOT coverage @> time
"""

_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
def series_id(database: psycopg.Connection) -> int:
    """A series of an exchange that is never asked."""
    return _add_series(database, "1m")


async def test_two_savers_of_one_page_write_it_once(
    settings: Settings, sandbox: Sandbox, database: psycopg.Connection, series_id: int
) -> None:
    """Two processes with the same page: one writes it, the other nothing; no error."""
    window = Window(START, START + _PAGE)
    async with (
        opened_services(settings, sandbox) as one,
        opened_services(settings, sandbox) as other,
    ):
        for _ in range(10):
            saves = (item.store.save(series_id, [window], _page(window)) for item in (one, other))
            assert sorted(await asyncio.gather(*saves)) == [0, 499]
            _assert_stored(database, series_id, [window])
            window = Window(window.end, window.end + _PAGE)
    assert _count(database) == 10 * 499


async def test_savers_of_overlapping_windows_leave_no_hole_and_no_double(
    services: Services, database: psycopg.Connection, series_id: int
) -> None:
    """Each saver writes the rows that are new; together they make one whole."""
    step = timedelta(minutes=100)
    windows = [Window(START + n * step, START + n * step + _PAGE) for n in range(_WRITERS)]
    saves = [
        store.save(series_id, [window], _page(window))
        for store, window in zip(_stores(services), windows, strict=True)
    ]
    written = await asyncio.gather(*saves)

    assert sum(written) == 499 + 7 * 100
    _assert_stored(database, series_id, [Window(START, windows[-1].end)])


async def test_saver_that_fails_leaves_neither_rows_nor_coverage(
    services: Services, database: psycopg.Connection, series_id: int
) -> None:
    """A page of which one row can't be written is not half stored, and not claimed."""
    window = Window(START, START + _PAGE)
    page = _page(window)
    page.time[7] = page.time[6]  # the primary key refuses the second of them
    with pytest.raises(psycopg.errors.UniqueViolation):
        await services.store.save(series_id, [window], page)

    assert await services.store.uncovered(series_id, window) == [window]
    assert _count(database) == 0


async def test_writers_that_create_chunks_do_not_deadlock(
    services: Services, database: psycopg.Connection
) -> None:
    """Eight writers of eight series, each into new chunks in its own order."""
    windows = [Window(at, at + _PAGE) for at in (START + timedelta(days=91 * n) for n in range(12))]
    series = [_add_series(database, f"{n}x") for n in range(_WRITERS)]
    saves = [
        _save_all(store, series[n], windows[n:] + windows[:n])
        for n, store in enumerate(_stores(services))
    ]
    written = await asyncio.gather(*saves)

    assert written == [len(windows) * 499] * _WRITERS
    assert database.execute(_OUTSIDE_COVERAGE).fetchone() == (0,)


async def test_writers_of_one_series_do_not_deadlock(
    services: Services, database: psycopg.Connection, series_id: int
) -> None:
    """Eight writers of the same pages, in different orders: each page is written once."""
    windows = [Window(at, at + _PAGE) for at in (START + timedelta(days=91 * n) for n in range(12))]
    orders = (windows[n:] + windows[:n] for n in range(_WRITERS))
    written = await asyncio.gather(
        *map(_save_all, _stores(services), [series_id] * _WRITERS, orders)
    )

    assert sum(written) == len(windows) * 499
    _assert_stored(database, series_id, windows)


async def test_pages_of_one_process_that_come_together_share_transactions(
    services: Services, database: psycopg.Connection
) -> None:
    """Writers of many pages of many series, in different orders: no loss, no doubles.

    What is saved while a transaction is under way goes with the next one: series and chunks are
    locked in one order whatever comes together, so that no session waits in a circle.
    """
    series = [_add_series(database, f"{n}x") for n in range(_WRITERS)]
    windows = [Window(at, at + _PAGE) for at in (START + timedelta(days=91 * n) for n in range(6))]
    pages = [(series_id, window) for series_id in series for window in windows]
    saves = [
        store.save(series_id, [window], _page(window))
        for number, store in enumerate(_stores(services)[:4])
        for series_id, window in pages[number * 11 :] + pages[: number * 11]
    ]
    before = _transactions(database)
    written = await asyncio.gather(*saves)

    assert sum(written) == len(pages) * 499 == _count(database)
    assert database.execute(_OUTSIDE_COVERAGE).fetchone() == (0,)
    for series_id in series:
        _assert_stored(database, series_id, windows)
    assert _transactions(database) - before < len(saves) / 2


async def test_save_that_fails_does_not_take_others_with_it(
    services: Services, database: psycopg.Connection, series_id: int
) -> None:
    """Three that come together, one of them of no series: the others are stored."""
    window = Window(START, START + _PAGE)
    other = _add_series(database, "1h")
    saves = [services.store.save(item, [window], _page(window)) for item in (series_id, -1, other)]
    results = await asyncio.gather(*saves, return_exceptions=True)

    assert [results[0], results[2]] == [499, 499]
    assert isinstance(results[1], LookupError)


async def test_rejected_rows_of_two_processes_do_not_deadlock(
    services: Services, database: psycopg.Connection
) -> None:
    """Each saves a window of one series and a refused row of the other's."""
    first, second = (_add_series(database, f"{n}x") for n in range(2))
    window, row = Window(START, START + _SLOT), RejectedRow(START, "row", "why")
    one, other, *_ = _stores(services)
    with database.transaction():
        database.execute("LOCK TABLE rejected_rows IN SHARE MODE")  # so that both get that far
        saves = [
            asyncio.create_task(saving)
            for store, mine, others in ((one, first, second), (other, second, first))
            for saving in (
                store.save(mine, [window], _page(window)),
                store.save(others, [], Candles.empty(), [row]),
            )
        ]
        await eventually(lambda: _waiting(database) >= 2)

    assert sum(await asyncio.gather(*saves)) == 2


def _waiting(database: psycopg.Connection) -> int:
    row = database.execute(_WAITING).fetchone()
    assert row
    return int(row[0])


def _stores(services: Services) -> list[CandleStore]:
    """Give stores that know nothing of one another, as those of several processes."""
    return [CandleStore(services.database) for _ in range(_WRITERS)]


def _transactions(database: psycopg.Connection) -> int:
    database.execute("SELECT pg_stat_clear_snapshot()")
    row = database.execute(_COMMITS).fetchone()
    assert row
    return int(row[0])


async def _save_all(store: CandleStore, series_id: int, windows: list[Window]) -> int:
    return sum([await store.save(series_id, [window], _page(window)) for window in windows])


def _page(window: Window) -> Candles:
    times = np.arange(to_ms(window.start), to_ms(window.end), _MINUTE_MS, dtype=np.int64)
    prices = 1.0 + times % 1000 / 1000
    return Candles(times, *(prices.copy() for _ in range(7)))


def _assert_stored(database: psycopg.Connection, series_id: int, windows: list[Window]) -> None:
    """Every minute of the windows is there, once, and no other minute is claimed."""
    query = "SELECT lower(w), upper(w) FROM series, unnest(coverage) w WHERE id = %s ORDER BY w"
    covered = [Window(*row) for row in database.execute(query, [series_id])]
    query = "SELECT count(*) FROM candles WHERE series_id = %s AND time >= %s AND time < %s"
    for window in windows:
        assert any(_holds(whole, window.start, window.end) for whole in covered)
        stored = database.execute(query, [series_id, window.start, window.end]).fetchone()
        assert stored == ((window.end - window.start) // timedelta(minutes=1),)
    assert database.execute(_OUTSIDE_COVERAGE).fetchone() == (0,)


def _holds(whole: Window, start: datetime, end: datetime) -> bool:
    return whole.start <= start and end <= whole.end


def _count(database: psycopg.Connection) -> int:
    row = database.execute("SELECT count(*) FROM candles").fetchone()
    return row[0] if row else -1


def _add_series(database: psycopg.Connection, name: str) -> int:
    database.execute(
        "INSERT INTO exchanges (code, name) VALUES ('none', 'None') ON CONFLICT DO NOTHING"
    )
    row = database.execute(
        """
        WITH added AS (
            INSERT INTO symbols
                (exchange, market_type, name, native, base, quote, multiplier, active)
            VALUES ('none', 'perp', %(name)s || '-B', %(name)s, 'A', 'B', 1, true) RETURNING id
        )
        INSERT INTO series (symbol_id, interval) SELECT id, '1m' FROM added RETURNING id
        """,
        {"name": name},
    ).fetchone()
    assert row is not None
    return row[0]
