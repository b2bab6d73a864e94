"""Old chunks in columns, if the server's edition has them; otherwise rows.

A server with TimescaleDB's community edition is the container's, or whatever `MDP_TEST_SERVER_URL`
names; Debian's is the Apache edition.
"""

import csv
import gzip
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psycopg
import pytest
from support.places import DATA
from support.postgres import Server

from db.roles import ANALYST, SERVICE
from db.upgrade import upgrade
from mdp_core.domain.candles import COLUMNS, Candles
from mdp_core.domain.clock import from_ms
from mdp_core.domain.windows import Window
from mdp_core.settings import DatabaseSettings
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.candles.corrections import Correction, Finder
from mdp_core.storage.database.database import Database, open_database
from mdp_core.storage.database.diagnostics import Chunk, read_status
from scripts.cli.database import report

pytestmark = pytest.mark.every_kind_of_database

_BLOCK_ROWS = 300
_POLICIES = "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = 'candles'"

Blocks = list[tuple[Window, Candles]]


@pytest.fixture
async def opened(database_url: str) -> AsyncGenerator[Database]:
    async with _opened(database_url) as database:
        yield database


@dataclass(frozen=True, slots=True)
class Stores:
    """The store as the services have it, who write, and as analysts do, who read."""

    service: CandleStore
    analyst: CandleStore


@pytest.fixture
async def stores(logins: dict[str, str]) -> AsyncGenerator[Stores]:
    """The store of each role, in the test's database."""
    async with (
        _opened(logins[SERVICE]) as service,
        _opened(logins[ANALYST], must_write=False) as analyst,
    ):
        yield Stores(CandleStore(service), CandleStore(analyst))


def has_columnstore(database: psycopg.Connection) -> bool:
    """Ask the server itself, not what the project makes of the answer."""
    found = database.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return found == ("timescale",)


async def test_only_the_community_edition_gets_a_columnstore(
    database: psycopg.Connection, server: Server
) -> None:
    """The Apache edition and plain Postgres are left alone; again changes nothing."""
    upgrade(server_url(database))
    if not server.has_timescaledb:
        return
    enabled = "SELECT compression_enabled FROM timescaledb_information.hypertables"
    expected = has_columnstore(database)

    assert database.execute(enabled).fetchone() == (expected,)
    assert len(database.execute(_POLICIES).fetchall()) == int(expected)


def test_a_license_that_comes_later_is_made_use_of(
    database_url: str, database: psycopg.Connection
) -> None:
    """An upgrade completes the tables of a server that had no license."""
    if not has_columnstore(database):
        pytest.skip("this edition has no columnstore")
    database.execute("SELECT remove_compression_policy('candles')")
    database.execute("ALTER TABLE candles SET (timescaledb.compress = false)")
    upgrade(database_url)

    assert len(database.execute(_POLICIES).fetchall()) == 1


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
async def test_real_candles_go_into_columns_and_late_ones_follow(
    opened: Database, database: psycopg.Connection, stores: Stores
) -> None:
    """Read, filled late, repaired, taken in again: always the numbers of the files.

    The services' role writes, analysts' reads, and neither has a right on the columns themselves.
    """
    if not has_columnstore(database):
        pytest.skip("this edition has no columnstore")
    files = {_add_series(database, n): _blocks(path) for n, path in enumerate(_files())}
    early = {series: blocks[::2] for series, blocks in files.items()}
    late = {series: blocks[1::2] for series, blocks in files.items()}

    await _save(stores, early)
    in_rows = (await read_status(opened)).chunks
    _run_policy(database)
    in_columns = (await read_status(opened)).chunks
    await _assert_stored(stores, early)
    await _save(stores, late)  # into compressed chunks
    await _assert_stored(stores, files)
    assert await _save(stores, files) == 0
    _run_policy(database)
    await _assert_stored(stores, files)
    for series, blocks in files.items():  # amid columns
        await _repair_there_and_back(stores, series, *blocks[len(blocks) // 2])
    await _assert_stored(stores, files)

    assert not any(chunk.is_in_columns for chunk in in_rows)
    assert all(chunk.is_in_columns for chunk in in_columns)
    assert _bytes_each_of_most(in_columns) < _bytes_each_of_most(in_rows) / 2


async def test_status_counts_candles_and_bytes(
    opened: Database, database: psycopg.Connection, server: Server
) -> None:
    """Each candle once, in its chunk; all chunks are no bigger than the database."""
    database.execute(
        "INSERT INTO candles SELECT 1, t, 1, 1, 1, 1, 1"
        " FROM generate_series(timestamptz '2020-01-01Z', '2020-12-31Z', '1 hour') AS t"
    )
    status = await read_status(opened)
    text = await report(DatabaseSettings(database_url=server_url(database)))

    assert sum(chunk.candles for chunk in status.chunks) == 365 * 24 + 1
    assert (len(status.chunks) > 1) is server.has_timescaledb
    assert 0 < sum(chunk.size_bytes for chunk in status.chunks) < status.size_bytes
    assert status.revision == status.newest_revision
    assert status.logins.keys() == {"mdp_analyst", "mdp_service"}
    assert "8,761" in text
    assert f"{status.revision}, the newest" in text


async def test_status_of_an_empty_server_says_what_to_do(
    opened: Database, database: psycopg.Connection
) -> None:
    """Without a schema there are no candles, and a command that brings one."""
    database.execute("DROP TABLE alembic_version")
    text = await report(DatabaseSettings(database_url=server_url(database)))

    assert "schema    none, not 0" in text
    assert "run `mdp db upgrade`" in text
    del opened


def server_url(database: psycopg.Connection) -> str:
    info = database.info
    return f"postgresql://{info.user}:{info.password}@{info.host}:{info.port}/{info.dbname}"


def _files() -> list[Path]:
    return sorted(DATA.glob("*.csv.gz"))


def _blocks(path: Path) -> Blocks:
    """Give the candles of a file in blocks, each with the window it is all of."""
    with gzip.open(path, "rt") as file:
        rows = np.array([[float(cell) for cell in row] for row in list(csv.reader(file))[1:]])
    times, volume, close = rows[:, 0].astype(np.int64), rows[:, 5], rows[:, 4]
    quote_volume, trades = volume * close, np.floor(volume)
    candles = Candles(times, *rows[:, 1:].T, quote_volume=quote_volume, trades=trades)
    starts = [*range(0, len(times), _BLOCK_ROWS)]
    edges = [from_ms(int(times[start])) for start in starts] + [from_ms(int(times[-1]) + 1)]
    windows = [Window(*pair) for pair in itertools.pairwise(edges)]
    return [(window, candles.inside(window)) for window in windows]


def _add_series(database: psycopg.Connection, number: int) -> int:
    database.execute("INSERT INTO exchanges VALUES ('x', 'X') ON CONFLICT DO NOTHING")
    row = database.execute(
        "WITH symbol AS (INSERT INTO symbols (exchange, market_type, name, native, base, quote,"
        " multiplier, active) VALUES ('x', 'spot', %(n)s, %(n)s, %(n)s, 'B', 1, true) RETURNING id)"
        " INSERT INTO series (symbol_id, interval) SELECT id, '1m' FROM symbol RETURNING id",
        {"n": str(number)},
    ).fetchone()
    assert row
    return row[0]


def _opened(url: str, *, must_write: bool = True) -> AbstractAsyncContextManager[Database]:
    return open_database(
        url, name="test", size=2, statement_timeout_seconds=60, must_write=must_write
    )


async def _save(stores: Stores, files: dict[int, Blocks]) -> int:
    saved = 0
    for series, blocks in files.items():
        for window, candles in blocks:
            saved += await stores.service.save(series, [window], candles)
    return saved


async def _assert_stored(stores: Stores, files: dict[int, Blocks]) -> None:
    for series, blocks in files.items():
        hull = Window(blocks[0][0].start, blocks[-1][0].end)
        stored = await stores.analyst.read(series, hull)
        expected = Candles.concatenate([candles for _, candles in blocks])
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(stored, name), getattr(expected, name))


def _run_policy(database: psycopg.Connection) -> None:
    for (job,) in database.execute(_POLICIES).fetchall():
        database.execute("CALL run_job(%s)", [job])


async def _repair_there_and_back(
    stores: Stores, series: int, window: Window, candles: Candles
) -> None:
    others = replace(candles, volume=candles.volume + 1)

    there = Correction(series, [window], others, Finder.REPAIR)
    assert len((await stores.service.correct(there)).differing) == len(candles)
    repaired = await stores.analyst.read(series, window)
    np.testing.assert_array_equal(repaired.volume, others.volume)
    back = Correction(series, [window], candles, Finder.REPAIR)
    assert len((await stores.service.correct(back)).differing) == len(candles)


def _bytes_each_of_most(chunks: Sequence[Chunk]) -> float:
    """Take the chunk with the most candles: an almost empty one is all overhead."""
    chunk = max(chunks, key=lambda chunk: chunk.candles)
    return chunk.size_bytes / chunk.candles
