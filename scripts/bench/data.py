"""Made-up candles in the store, and the baseline ways to write and read them."""

import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
from psycopg import sql

from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.intervals import Interval, epoch_grid
from mdp_core.domain.windows import Window
from mdp_core.storage.candles.binary_copy import copy_batches
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.database.database import open_database

SERIES = "/candles/binance/perp/ETH-USDT/1m"
START = datetime(2016, 1, 1, tzinfo=UTC)

_GRID = epoch_grid(Interval.ONE_MINUTE)

# Which series is that of `SERIES`?
_SERIES_ID = """SELECT series.id FROM series JOIN symbols ON symbols.id = symbol_id
WHERE symbols.name = 'ETH-USDT' AND interval = '1m'"""

# A series that no exchange has.
_NEW_SERIES = """WITH symbol AS (
    INSERT INTO symbols (exchange, market_type, name, native, base, quote, multiplier, active)
    VALUES ('binance', 'spot', %(name)s, %(name)s, %(name)s, 'X', 1, false) RETURNING id
)
INSERT INTO series (symbol_id, interval) SELECT id, '1m' FROM symbol RETURNING id"""

# The store knows nothing any more; every series begins early enough for what is made up.
_FORGET = """TRUNCATE candles;
UPDATE series SET coverage = '{}', epoch = epoch + 1, history_begins = '2016-01-01Z'"""


@dataclass(frozen=True, slots=True)
class Base:
    """The database that is measured, and the server's own client."""

    url: str
    psql: Path
    series_id: int


def open_base(url: str, psql: Path) -> Base:
    """Find the series in a database."""
    return Base(url, psql, _one(url, _SERIES_ID))


def minutes(count: int, *, after: int = 0) -> Window:
    """Give the window of `count` minutes that begins so many minutes after the start."""
    start = START + timedelta(minutes=after)
    return Window(start, start + timedelta(minutes=count))


def path(window: Window, name: str = "json", series: str = SERIES) -> str:
    """Give the path of a window's candles in a format."""
    return f"{series}?start={to_ms(window.start)}&end={to_ms(window.end)}&format={name}"


def random_candles(window: Window) -> Candles:
    """Make up a candle for every slot."""
    times = _GRID.times(_GRID.index(window.start), _GRID.index(window.end))
    random = np.random.default_rng(1)
    columns = [np.round(random.uniform(1, 60_000, len(times)), 2) for _ in range(8)]
    return Candles(
        times,
        *columns[:6],
        trades=np.floor(random.uniform(0, 9_000, len(times))),
        taker_buy_volume=columns[6],
        taker_buy_quote_volume=columns[7],
    )


async def save(url: str, series_id: int, window: Window) -> float:
    """Store made-up candles in one transaction; give the seconds."""
    candles = random_candles(window)
    async with open_database(url, name="bench", size=2, statement_timeout_seconds=600) as database:
        begun = time.perf_counter()
        await CandleStore(database).save(series_id, [window], candles)
        return time.perf_counter() - begun


def bare_copy(url: str, series_id: int, window: Window) -> float:
    """Write the same bytes as `save`, and nothing else; give the seconds."""
    [(columns, data)] = copy_batches(series_id, random_candles(window))
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY candles (series_id, {}) FROM STDIN (FORMAT binary)").format(names)
    with psycopg.connect(url) as connection:
        begun = time.perf_counter()
        with connection.cursor().copy(statement) as copy:
            copy.write(data)
        connection.commit()
        return time.perf_counter() - begun


def forget(url: str) -> None:
    """Empty the store."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FORGET)


def settle(url: str) -> None:
    """Have the server do now what it would do some time after rows were written."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE candles")
        connection.execute("CHECKPOINT")


def new_series(url: str, name: str) -> int:
    """Add a series that no exchange has."""
    return _one(url, _NEW_SERIES, name=name)


def versions(url: str) -> str:
    """Say which server it is, and which extension it has."""
    query = "SELECT current_setting('server_version')"
    extension = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
    with psycopg.connect(url) as connection:
        server = connection.execute(query).fetchone() or ("?",)
        timescaledb = connection.execute(extension).fetchone()
    return f"PostgreSQL {server[0]}" + (f", TimescaleDB {timescaledb[0]}" if timescaledb else "")


def psql_copy(base: Base, window: Window) -> None:
    """Have psql copy the rows out to nowhere."""
    rows = sql.SQL(
        "COPY (SELECT time, open, high, low, close, volume FROM candles WHERE series_id = {} "
        "AND time >= {} AND time < {} ORDER BY time) TO STDOUT (FORMAT binary)"
    )
    query = rows.format(base.series_id, window.start, window.end).as_string()
    command = [str(base.psql), base.url, "-qc", query]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - found by us


def _one(url: str, query: str, **values: object) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode(), values).fetchone()
    assert row, "there is one"  # noqa: S101 - for the type checker
    return int(row[0])
