"""Measure the cost of chunk intervals of `candles`: writes, reads, locks, sizes.

Every interval gets a server of its own with the schema of the migrations, filled with made-up
candles by `CandleStore`. Times are medians in milliseconds. Results: docs/chunk-interval.md.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import psycopg
import typer

from db.local.server import open_local_database, remove_local_database
from db.upgrade import upgrade
from mdp_core.domain.candles import Candles
from mdp_core.domain.clock import to_ms
from mdp_core.domain.windows import Window
from mdp_core.storage.candles.candle_store import CandleStore
from mdp_core.storage.database.database import Database, open_database

_BEGIN, _END = datetime(1, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
_DAY, _MILLISECOND = timedelta(days=1), timedelta(milliseconds=1)
_PAGE_SLOTS, _LATEST_SLOTS, _BLOCK_SLOTS = 499, 4990, 20_000
_LOADERS, _WRITERS, _READERS, _REPEATS = 4, 8, 30, 30
Figures = dict[str, float]
Folder = Annotated[Path, typer.Option()]
_open = partial(open_database, name="bench", statement_timeout_seconds=60)

# Neither a checkpoint nor a vacuum amid a measurement; and the server's own bounds of locks.
_QUIET = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off"}
_SERVER = {"shared_buffers": "2GB", **_QUIET}
_FEW_LOCKS = {**_SERVER, "max_locks_per_transaction": "64", "max_connections": "100"}

# From now on a new chunk holds so many days; or, as the reference, the same table undivided.
_DIVIDE = "SELECT set_chunk_time_interval('candles', make_interval(days => %s))"
_UNDIVIDE = """CREATE TABLE ordinary (LIKE candles INCLUDING ALL); DROP VIEW candle_rows;
DROP TABLE candles; ALTER TABLE ordinary RENAME TO candles"""

# Make so many series of a kind.
_MAKE_SERIES = """INSERT INTO series (symbol_id, interval)
SELECT n, %s FROM generate_series(1, %s) AS n RETURNING id"""

# Which candle is the newest in this window?
_NEWEST = """SELECT * FROM candles WHERE series_id = %s AND time >= %s AND time < %s
ORDER BY time DESC LIMIT 1"""

# How long does it take to plan a read, and how many locks does its transaction hold?
_EXPLAIN = """EXPLAIN (ANALYZE, TIMING off, FORMAT json)
SELECT time, close FROM candles WHERE series_id = %s AND time >= %s AND time < %s ORDER BY time"""
_LOCKS = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"

# How many chunks; GB of tables and of indexes; index bytes a row in the largest part?
_SIZES = """
SELECT count(*) - 1, sum(pg_table_size(oid))::float8 / 1e9, sum(pg_indexes_size(oid))::float8 / 1e9,
       (array_agg(pg_indexes_size(oid) / nullif(reltuples, 0) ORDER BY relpages DESC))[1]
FROM pg_class WHERE oid = 'candles'::regclass
    OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'candles'::regclass)
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Series of one interval (`ids`) and the window of their candles."""

    ids: list[int]
    step: timedelta
    window: Window


def main(
    data_dir: Folder, series: int = 300, days: str = "7,30,90,180,365,0", months_of_minutes: int = 3
) -> None:
    """Measure chunk intervals (0: one table); a third of the series each 1d, 1h, 1m."""
    results: dict[str, Figures] = {}
    for interval in map(int, days.split(",")):
        try:
            measured = _measure(data_dir, interval, series // 3, months_of_minutes)
        finally:
            remove_local_database(data_dir)
        results[f"{interval} days" if interval else "undivided"] = measured
    typer.echo(f"| | {' | '.join(results)} |\n|---|{'---:|' * len(results)}")
    for name in next(iter(results.values())):
        cells = (f"{figures[name]:,.2f}" for figures in results.values())
        typer.echo(f"| {name} | {' | '.join(cells)} |")


def _measure(data_dir: Path, days: int, symbols: int, months: int) -> Figures:
    with open_local_database(data_dir, kind="timescaledb", settings=_SERVER) as server:
        groups = _create(server.url, days, symbols, months)
        figures: Figures = {}
        for measure in (_load, _reads, _newest, _saves):
            figures |= asyncio.run(measure(server.url, groups))
        figures |= _plan(server.url, groups["1d"])
    with open_local_database(data_dir, kind="timescaledb", settings=_FEW_LOCKS) as server:
        return figures | _room(server.url, groups["1d"])


def _create(url: str, days: int, symbols: int, months: int) -> dict[str, Group]:
    """Create the schema with this chunk interval, and the series."""
    upgrade(url)
    kinds = (("1d", 1, 3652), ("1h", 24, 1826), ("1m", 1440, 30 * months), ("empty", 1, 3652))
    groups: dict[str, Group] = {}
    with psycopg.connect(url) as connection:
        connection.execute(_DIVIDE, [days or 1])
        if not days:
            connection.execute(_UNDIVIDE)
        # Series without symbols: that role checks no foreign keys.
        connection.execute("SET LOCAL session_replication_role = replica")
        for kind, slots_a_day, length in kinds:
            ids = [row[0] for row in connection.execute(_MAKE_SERIES, [kind, symbols])]
            groups[kind] = Group(ids, _DAY / slots_a_day, Window(_END - length * _DAY, _END))
    return groups


async def _load(url: str, groups: Mapping[str, Group]) -> Figures:
    """Fill the series in loose time order: slab by slab, shuffled within each."""
    random, filled = np.random.default_rng(1), [groups[kind] for kind in ("1d", "1h", "1m")]
    jobs = [
        (window.start, random.random(), group, series_id, window)
        for group in filled
        for window, series_id in product(_cut(group.window, 28 * _DAY), group.ids)
    ]
    saves = (job[2:] for job in sorted(jobs, key=lambda job: job[:2]))
    async with _open(url, size=_LOADERS) as database:
        begin = time.perf_counter()
        await _times((_save(database, *save) for save in saves), _LOADERS)
        seconds = time.perf_counter() - begin
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) candles")
        connection.execute("CHECKPOINT")
        sizes = connection.execute(_SIZES).fetchall()[0]
    rows = sum(len(g.ids) * ((g.window.end - g.window.start) // g.step) for g in filled)
    names = ("chunks", "tables, GB", "indexes, GB", "index bytes a row")
    return {"load by 4 writers, rows/s": rows / seconds, **dict(zip(names, sizes, strict=True))}


async def _reads(url: str, groups: Mapping[str, Group]) -> Figures:
    figures: Figures = {}
    month, daily = Window(_END - 30 * _DAY, _END), groups["1d"]
    for what, kind in (("month", "1m"), ("month", "1h"), ("all", "1h"), ("all", "1d")):
        group = groups[kind]
        window = month if what == "month" else group.window
        async with _open(url, size=1) as database:
            took = await _times(_read(database, group, n, window) for n in range(_REPEATS))
        figures[f"{what} of {kind}"] = float(np.median(took))
        figures[f"{what} of {kind}, new connection"] = took[0]
    async with _open(url, size=_READERS) as database:
        reads = (_read(database, daily, n, daily.window) for n in range(13 * _READERS))
        warm = (await _times(reads, _READERS))[3 * _READERS :]
    p50, p99 = np.percentile(warm, (50, 99))
    return figures | {"all of 1d, 30 readers, p50": p50, "all of 1d, 30 readers, p99": p99}


async def _newest(url: str, groups: Mapping[str, Group]) -> Figures:
    """Look for the newest candle in the last ten pages, and in all time."""
    figures: Figures = {}
    for kind, bound in product(("1m", "1h", "1d"), ("", " unbounded")):
        group = groups[kind]
        start = _BEGIN if bound else _END - _LATEST_SLOTS * group.step
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            took = await _times(connection.execute(_NEWEST, [n, start, _END]) for n in group.ids)
        figures[f"newest {kind}{bound}"] = float(np.median(took))
    return figures


def _plan(url: str, group: Group) -> Figures:
    whats = [[n, group.window.start, _END] for n in group.ids[:_REPEATS]]
    with psycopg.connect(url) as connection:
        rows = [connection.execute(_EXPLAIN, what, prepare=False).fetchall() for what in whats]
        figures: Figures = {"all of 1d, locks": connection.execute(_LOCKS).fetchall()[0][0]}
    for part in ("Planning Time", "Execution Time"):
        figures[f"all of 1d, {part}"] = float(np.median([row[0][0][0][part] for row in rows]))
    return figures


async def _saves(url: str, groups: Mapping[str, Group]) -> Figures:
    """Save pages of old minutes, of days, then a new minute of each series."""
    minutes, empty, page = groups["1m"], groups["empty"], _PAGE_SLOTS * _DAY / 1440
    first, *others = _cut(Window(minutes.window.start - 12 * page, minutes.window.start), page)
    days, edge = Window(_END - 999 * _DAY, _END - 500 * _DAY), Window(_END, _END + minutes.step)
    async with _open(url, size=_WRITERS) as database:
        alone = await _times(_save(database, minutes, n, first) for n in minutes.ids)
        begin = time.perf_counter()
        saves = (_save(database, minutes, n, window) for window in others for n in minutes.ids)
        count = len(await _times(saves, _WRITERS))
        rate = count * _PAGE_SLOTS / (time.perf_counter() - begin)
        daily = await _times(_save(database, empty, n, days) for n in empty.ids)
        newest = await _times(_save(database, minutes, n, edge) for n in minutes.ids)
    took = {"save 499 of 1m": alone, "save 499 of 1d": daily, "save one new 1m": newest}
    medians = {name: float(np.median(times)) for name, times in took.items()}
    return medians | {"8 writers of 499 of 1m, rows/s": rate}


def _room(url: str, group: Group) -> Figures:
    """Count the readers of whole histories that find room for their locks at once."""
    room = 0
    with ExitStack() as stack:
        for n in group.ids[:_READERS]:
            connection = stack.enter_context(psycopg.connect(url))
            with suppress(psycopg.errors.OutOfMemory):
                connection.execute(_EXPLAIN, [n, group.window.start, _END])
                room += 1
    return {"readers of all of 1d with room at 64 locks, of 30": room}


async def _times(actions: Iterator[Awaitable[object]], workers: int = 1) -> list[float]:
    """Run the actions, some at once; return the milliseconds of each as it ended."""
    took: list[float] = []

    async def work() -> None:
        for action in actions:
            begin = time.perf_counter()
            await action
            took.append(1000 * (time.perf_counter() - begin))

    await asyncio.gather(*(work() for _ in range(workers)))
    return took


async def _save(database: Database, group: Group, series_id: int, window: Window) -> None:
    times = np.arange(to_ms(window.start), to_ms(window.end), group.step // _MILLISECOND)
    candles = Candles(times, *(np.ones(len(times)),) * 7)
    if await CandleStore(database).save(series_id, [window], candles) != len(times):
        raise RuntimeError(window)


async def _read(database: Database, group: Group, n: int, window: Window) -> None:
    """Read a window of the n-th series, block after block."""
    for block in _cut(window, _BLOCK_SLOTS * group.step):
        candles = await CandleStore(database).read(group.ids[n % len(group.ids)], block)
        if len(candles) != (block.end - block.start) // group.step:
            raise RuntimeError(block)


def _cut(window: Window, size: timedelta) -> list[Window]:
    starts = (window.start + n * size for n in range(-((window.start - window.end) // size)))
    return [Window(start, min(start + size, window.end)) for start in starts]


if __name__ == "__main__":
    typer.run(main)
