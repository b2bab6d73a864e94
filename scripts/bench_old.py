"""How fast the service is, as ratios to something measured in the same run (`make bench`).

- Read: an answer as JSON over HTTP, to psql's binary COPY of the same rows to nowhere.
- Fill: CPU time of the API's process for each candle fetched and stored.
- Write: candles saved per second, to a bare binary COPY of the same bytes.

Medians; the database is the local one, the exchange the sandbox.
"""

import asyncio
import http.client
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import orjson
import psutil
import psycopg
from psycopg import sql

from db.local import LocalDatabase, open_local_database
from mdp_core.candle_copy import copy_batches
from mdp_core.clock import to_ms
from mdp_core.database import open_database
from mdp_core.intervals import Interval, epoch_grid
from mdp_core.model import Candles, Window
from mdp_core.store import CandleStore
from scripts.stack import SandboxRequest, Stack, open_stack

_ROUNDS = 5
_SIZES = (100_000, 1_000_000)
_READ_START = datetime(2022, 1, 1, tzinfo=UTC)
_FILL_START = datetime(2021, 1, 1, tzinfo=UTC)
_FILL_CANDLES = 98 * 499
_WRITE_CANDLES = 100_000
_API_PORT = 8793
_GRID = epoch_grid(Interval.ONE_MINUTE)
_SERIES = "/candles/binance/perp/ETH-USDT/1m"


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured line of the table."""

    name: str
    value: str
    aim: str


def main() -> None:
    """Measure everything and print the table."""
    with tempfile.TemporaryDirectory() as folder, _database(Path(folder)) as database:
        with open_stack(Path(folder), _API_PORT, SandboxRequest()) as (stack, processes):
            api = psutil.Process(processes["the API"].pid)
            figures = [*_measure_fill(stack, api), *_measure_reads(stack, database)]
        figures += asyncio.run(_measure_write(database.url))
        print(_table(figures, database))  # noqa: T201 - the point of it


@contextmanager
def _database(folder: Path) -> Generator[LocalDatabase]:
    with open_local_database(folder) as database:
        os.environ["DATABASE_URL"] = database.url
        os.environ["MDP_BINANCE_SHARE"] = "1.0"
        yield database


def _measure_fill(stack: Stack, api: psutil.Process) -> list[Figure]:
    _post(f"{stack.sandbox_url}/_sandbox/settings", {"limits": "off"})
    _get(stack, f"{_SERIES}?limit=1")
    samples: list[float] = []
    for round_ in range(_ROUNDS):
        start = _FILL_START + round_ * timedelta(days=60)
        before = sum(api.cpu_times()[:2])
        _get(stack, _path(Window(start, start + timedelta(minutes=_FILL_CANDLES))))
        samples.append((sum(api.cpu_times()[:2]) - before) / _FILL_CANDLES * 1e6)
    return [Figure("fill: CPU microseconds a candle", _median(samples), "<= 3")]


def _measure_reads(stack: Stack, database: LocalDatabase) -> list[Figure]:
    with psycopg.connect(database.url) as connection:
        row = connection.execute("SELECT id FROM series WHERE interval = '1m'").fetchone()
    assert row, "the fill made the series"  # noqa: S101
    series_id = cast("int", row[0])
    window = Window(_READ_START, _READ_START + timedelta(minutes=max(_SIZES)))
    asyncio.run(_save(database.url, series_id, window))
    figures: list[Figure] = []
    for size in _SIZES:
        part = Window(window.start, window.start + timedelta(minutes=size))
        over_http = _times(lambda part=part: _get(stack, _path(part)))
        through_psql = _times(lambda part=part: _psql_copy(database, series_id, part))
        ratio = statistics.median(over_http) / statistics.median(through_psql)
        name = f"read: {size:,} candles as JSON over HTTP / psql binary COPY"
        spent = f"{statistics.median(over_http):.3f} s / {statistics.median(through_psql):.3f} s"
        figures.append(Figure(name, f"{ratio:.2f} ({spent})", "<= 1.3"))
    return figures


async def _measure_write(url: str) -> list[Figure]:
    window = Window(_READ_START, _READ_START + timedelta(minutes=_WRITE_CANDLES))
    candles = _random_candles(window)
    saved: list[float] = []
    copied: list[float] = []
    async with open_database(url, name="bench", size=2, statement_timeout_seconds=60) as database:
        store = CandleStore(database)
        for round_ in range(_ROUNDS):
            series_id = await _new_series(url, f"BENCH{round_}")
            begun = time.perf_counter()
            await store.save(series_id, [window], candles)
            saved.append(time.perf_counter() - begun)
            copied.append(await _bare_copy(url, -1 - round_, candles))
    ratio = statistics.median(copied) / statistics.median(saved)
    rate = _WRITE_CANDLES / statistics.median(saved)
    name = "write: candles saved a second / bare binary COPY"
    return [Figure(name, f"{ratio:.2f} ({rate:,.0f} candles/s)", ">= 0.7")]


async def _new_series(url: str, base: str) -> int:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute(
            "WITH symbol AS ("
            "INSERT INTO symbols (exchange, market_type, name, native, base, quote, multiplier,"
            " active) VALUES ('binance', 'bench', %(base)s, %(base)s, %(base)s, 'X', 1, false)"
            " RETURNING id) "
            "INSERT INTO series (symbol_id, interval) SELECT id, '1m' FROM symbol RETURNING id",
            {"base": base},
        )
        row = await cursor.fetchone()
    assert row, "an insert returns its row"  # noqa: S101
    return int(row[0])


async def _bare_copy(url: str, series_id: int, candles: Candles) -> float:
    [(columns, data)] = copy_batches(series_id, candles)
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY candles (series_id, {}) FROM STDIN (FORMAT binary)").format(names)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        begun = time.perf_counter()
        async with connection.cursor().copy(statement) as copy:
            await copy.write(data)
        await connection.commit()
        return time.perf_counter() - begun


async def _save(url: str, series_id: int, window: Window) -> None:
    async with open_database(url, name="bench", size=2, statement_timeout_seconds=60) as database:
        await CandleStore(database).save(series_id, [window], _random_candles(window))


def _random_candles(window: Window) -> Candles:
    times = _GRID.times(_GRID.index(window.start), _GRID.index(window.end))
    random = np.random.default_rng(1)
    columns = [np.round(random.uniform(1, 60_000, len(times)), 2) for _ in range(6)]
    return Candles(times, *columns, trades=np.floor(random.uniform(0, 9_000, len(times))))


def _psql_copy(database: LocalDatabase, series_id: int, window: Window) -> None:
    rows = sql.SQL(
        "COPY (SELECT time, open, high, low, close, volume FROM candles WHERE series_id = {} "
        "AND time >= {} AND time < {} ORDER BY time) TO STDOUT (FORMAT binary)"
    )
    query = rows.format(series_id, window.start, window.end).as_string()
    command = [str(database.bin_dir / "psql"), database.url, "-qc", query]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # noqa: S603 - found by us


def _path(window: Window) -> str:
    return f"{_SERIES}?start={to_ms(window.start)}&end={to_ms(window.end)}"


def _get(stack: Stack, path: str) -> None:
    """Read an answer to its end, keeping nothing."""
    address = urlsplit(stack.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)
    connection.request("GET", path, headers={"Authorization": f"Bearer {stack.token}"})
    response = connection.getresponse()
    buffer = bytearray(1 << 20)
    while response.readinto(buffer):
        pass
    connection.close()
    if response.status != http.HTTPStatus.OK:
        message = f"{path}: HTTP {response.status}"
        raise RuntimeError(message)


def _post(url: str, body: object) -> None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    connection.request("POST", address.path, orjson.dumps(body))
    connection.getresponse().read()
    connection.close()


def _times(action: Callable[[], None]) -> list[float]:
    action()
    samples: list[float] = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        action()
        samples.append(time.perf_counter() - begun)
    return samples


def _median(samples: list[float]) -> str:
    return f"{statistics.median(samples):.2f}"


def _table(figures: list[Figure], database: LocalDatabase) -> str:
    rows = [f"| {each.name} | {each.value} | {each.aim} |" for each in figures]
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {database.kind}"
    return "\n".join(
        [
            f"Medians of {_ROUNDS}; {machine}.",
            "",
            "| figure | measured | aim |",
            "|---|---|---|",
            *rows,
        ]
    )


if __name__ == "__main__":
    main()
