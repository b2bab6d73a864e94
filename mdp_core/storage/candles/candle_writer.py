"""Write candles and coverage: one transaction for all that is saved at once.

What is saved while a transaction is under way shares the next one, its locks and its round trips.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString, TypeAlias, cast

import numpy as np
from psycopg import sql
from psycopg.types.multirange import Multirange

from mdp_core.domain.candles import Candles, RejectedRow
from mdp_core.domain.clock import EPOCH, Clock, from_ms
from mdp_core.domain.intervals import Int64s
from mdp_core.domain.series import DOUBTED_BEFORE
from mdp_core.domain.windows import Window, intersect, subtract
from mdp_core.errors import ClockSkew, StoreUnavailable
from mdp_core.storage.candles.absences import Absence, add_absences, clipped
from mdp_core.storage.candles.binary_copy import copy_batches
from mdp_core.storage.candles.changes import record_changes
from mdp_core.storage.database.batching import BatchingQueue
from mdp_core.storage.database.database import Connection, Database

_log = logging.getLogger(__name__)

# The windows of `as_columns`, as one multirange for each series.
_WINDOWS: LiteralString = """
    SELECT id, range_agg(tstzrange(opens, ends)) AS windows
    FROM unnest(%(ids)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
        AS each(id, opens, ends)
    GROUP BY id
"""

# What of these windows is not covered, and where do the histories begin? No other process saves
# until the transaction ends.
# All writers lock series in one order.
_LOCK_MISSING: LiteralString = f"""
SELECT series.id, asked.windows - series.coverage, series.history_begins
FROM series JOIN ({_WINDOWS}) AS asked USING (id)
ORDER BY series.id FOR UPDATE OF series
"""  # noqa: S608 - of constants only

# Nothing is covered beyond that by the database's own clock, read as the service reads its own.
_FUTURE: LiteralString = """
    %(shown)s::timestamptz + (clock_timestamp() - %(since)s::timestamptz + interval '5 minutes')
        * %(speed)s::float8
"""

# From now on the store equals the exchange in these windows. Those that reach beyond the database's
# clock are left out: whatever the clocks of the fetching process told.
_COVER: LiteralString = f"""
UPDATE series SET coverage = coverage + fresh.windows
FROM ({_WINDOWS}) AS fresh
WHERE series.id = fresh.id AND upper(fresh.windows) <= {_FUTURE}
RETURNING series.id
"""  # noqa: S608 - of constants only

# The history of a series begins with this candle: a history start is never after a stored one.
_BEGIN_EARLIER: LiteralString = """
UPDATE series SET history_begins = %(first)s WHERE id = %(series_id)s
"""

# Remember rows that can't be right.
_REJECT: LiteralString = """
INSERT INTO rejected_rows (series_id, slot, row, reason)
SELECT * FROM unnest(
    %(ids)s::int[], %(slots)s::timestamptz[], %(rows)s::text[], %(reasons)s::text[])
ON CONFLICT (series_id, slot) DO UPDATE
SET row = excluded.row, reason = excluded.reason, last_seen = now(),
    times_seen = rejected_rows.times_seen + 1
"""

_COPY_IN = sql.SQL("COPY candles (series_id, {columns}) FROM STDIN (FORMAT binary)")

# Rejected rows alone lock their series too, in the same order: they refer to it.
_NOTHING = Window(EPOCH, EPOCH)

SeriesWindow: TypeAlias = tuple[int, Window]


@dataclass(frozen=True, slots=True)
class Save:
    """Windows of a series (ascending, disjoint), all their candles, wrong rows.

    `absences` are slots of the windows without a candle that will be asked for again.
    """

    series_id: int
    windows: Sequence[Window]
    candles: Candles
    rejected: Sequence[RejectedRow] = ()
    absences: Sequence[Absence] = ()


class Saver:
    """Saves for one process; right without any lock outside the database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._saves = BatchingQueue(self._save_together)

    async def save(self, save: Save) -> int:
        """Store what is new, as `CandleStore.save` says; give how many candles were."""
        try:
            return await self._saves.submit(save)
        except ClockSkew as error:
            until = max(window.end for window in save.windows).isoformat()
            what = "nothing is stored of series %s up to %s, which is yet to come: %s"
            _log.warning(what, save.series_id, until, error)
            raise

    async def aclose(self) -> None:
        """Wait for what is being saved."""
        await self._saves.aclose()

    async def _save_together(self, saves: Sequence[Save]) -> Sequence[int | Exception]:
        """Save all in one transaction; a bad one must not keep the others from it."""
        try:
            return await self._save_at_once(saves)
        except StoreUnavailable:
            raise
        except Exception:
            if len(saves) == 1:
                raise
            return [await self._save_alone(save) for save in saves]

    async def _save_alone(self, save: Save) -> int | Exception:
        try:
            return (await self._save_at_once([save]))[0]
        except Exception as error:  # noqa: BLE001 - the caller raises it
            return error

    async def _save_at_once(self, saves: Sequence[Save]) -> list[int]:
        """Lock, copy, cover: the order that keeps writers from deadlocks."""
        async with self._database.transaction() as connection:
            missing, begins = await _lock_missing(connection, saves)
            fresh = [_taken(missing, save) for save in saves]
            parts = [
                [save.candles.inside(window) for window in windows]
                for save, windows in zip(saves, fresh, strict=True)
            ]
            counts = [sum(map(len, of_save)) for of_save in parts]
            series_ids = np.repeat([save.series_id for save in saves], counts)
            rows = Candles.concatenate([part for of_save in parts for part in of_save])
            in_time = np.argsort(rows.time, kind="stable")  # so that chunks are made in one order
            await copy_in(connection, series_ids[in_time], rows[in_time])
            await _cover(connection, saves, fresh, self._clock)
            await _begin_earlier(connection, begins, series_ids[in_time], rows.time[in_time])
            doubts = zip(saves, fresh, strict=True)
            await add_absences(
                connection,
                [part for save, windows in doubts for part in clipped(save.absences, windows)],
            )
            await remember_rejected(
                connection, [(save.series_id, row) for save in saves for row in save.rejected]
            )
        return counts


async def _lock_missing(
    connection: Connection, saves: Sequence[Save]
) -> tuple[dict[int, list[Window]], dict[int, datetime | None]]:
    """Lock the series; return the gaps of the windows, and the history starts."""
    asked = [(save.series_id, window) for save in saves for window in save.windows or [_NOTHING]]
    cursor = await connection.execute(_LOCK_MISSING, as_columns(asked), binary=True)
    rows = await cursor.fetchall()
    missing = {row[0]: windows_of(row[1]) for row in rows}
    for save in saves:
        if save.series_id not in missing:
            raise not_in_the_catalog(save.series_id)
    return missing, {row[0]: row[2] for row in rows}


async def _begin_earlier(
    connection: Connection,
    begins: Mapping[int, datetime | None],
    series_ids: Int64s,
    times: Int64s,
) -> None:
    """Move a history start that lies after a stored candle; `times` ascend."""
    ids, places = np.unique(series_ids, return_index=True)
    for series_id, time_ms in zip(ids.tolist(), times[places].tolist(), strict=True):
        first, known = from_ms(time_ms), begins[series_id]
        if known is not None and first < known:
            parameters = {"series_id": series_id, "first": first}
            await connection.execute(_BEGIN_EARLIER, parameters)
            await record_changes(connection, series_id, [Window(first - DOUBTED_BEFORE, known)])


def _taken(missing: dict[int, list[Window]], save: Save) -> list[Window]:
    """Take what `save` can give of what is missing; the next one finds less missing."""
    left = missing[save.series_id]
    taken = [part for window in save.windows for part in intersect(left, window)]
    missing[save.series_id] = subtract(left, taken)
    return taken


async def _cover(
    connection: Connection,
    saves: Sequence[Save],
    fresh: Sequence[Sequence[Window]],
    clock: Clock,
) -> None:
    covered = [
        (save.series_id, window)
        for save, windows in zip(saves, fresh, strict=True)
        for window in windows
    ]
    if not covered:
        return
    shift = {"shown": clock.shown, "since": clock.since, "speed": clock.speed}
    cursor = await connection.execute(_COVER, {**as_columns(covered), **shift})
    if len(await cursor.fetchall()) < len({series_id for series_id, _ in covered}):
        raise await _beyond_now(connection, clock)


async def _beyond_now(connection: Connection, clock: Clock) -> ClockSkew:
    """Make the error for what would be covered beyond the database's clock."""
    cursor = await connection.execute("SELECT clock_timestamp()")
    row = cast("tuple[datetime]", await cursor.fetchone())
    return ClockSkew("the database", clock.at(row[0]), clock())


async def remember_rejected(
    connection: Connection, rows: Sequence[tuple[int, RejectedRow]]
) -> None:
    """Remember rows that can't be right, each of a series."""
    rejected = {(series_id, row.slot): row for series_id, row in rows}
    if rejected:
        params = {
            "ids": [series_id for series_id, _ in rejected],
            "slots": [slot for _, slot in rejected],
            "rows": [row.row for row in rejected.values()],
            "reasons": [row.reason for row in rejected.values()],
        }
        await connection.execute(_REJECT, params)


async def copy_in(connection: Connection, series_ids: int | Int64s, candles: Candles) -> None:
    """Append candles, each of the series at its place, or all of one."""
    for columns, data in copy_batches(series_ids, candles):
        statement = _COPY_IN.format(columns=sql.SQL(", ").join(map(sql.Identifier, columns)))
        async with connection.cursor().copy(statement) as copy:
            await copy.write(data)


def windows_of(multirange: Multirange[datetime]) -> list[Window]:
    """Give the windows of what the database answers."""
    return [
        Window(cast("datetime", part.lower), cast("datetime", part.upper)) for part in multirange
    ]


def not_in_the_catalog(series_id: int) -> LookupError:
    """Make the error for a series that is not stored."""
    return LookupError(f"series {series_id} is not in the catalog")


def as_columns(windows: Sequence[SeriesWindow]) -> dict[str, object]:
    """Give series and windows as the arrays of a statement."""
    return {
        "ids": [series_id for series_id, _ in windows],
        "starts": [window.start for _, window in windows],
        "ends": [window.end for _, window in windows],
    }
