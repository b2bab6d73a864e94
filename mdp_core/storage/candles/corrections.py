"""Corrections of stored candles, their revisions, and the versions they raise.

Each correction is one transaction under the row lock of its series.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, LiteralString

import numpy as np
import orjson

from mdp_core.domain.candles import COLUMNS, Candles
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.comparison import Comparison, compare, complete
from mdp_core.domain.intervals import Int64s
from mdp_core.domain.windows import Window, hull, intersect
from mdp_core.storage.candles.absences import Absence, add_absences
from mdp_core.storage.candles.candle_reader import read_block
from mdp_core.storage.candles.candle_writer import copy_in, not_in_the_catalog, windows_of
from mdp_core.storage.candles.changes import ranges_of, record_changes
from mdp_core.storage.database.database import Connection

# What is covered of these windows? No other process saves until the transaction ends.
_LOCK_COVERED: LiteralString = """
SELECT coverage * %(windows)s::tstzmultirange FROM series WHERE id = %(series_id)s FOR UPDATE
"""

# Delete these candles; the bounds keep other chunks out of it.
_DELETE: LiteralString = """
DELETE FROM candles
WHERE series_id = %(series_id)s AND time >= %(first)s AND time <= %(last)s AND time = ANY(%(times)s)
"""

# Keep both values of each corrected slot.
_REVISE: LiteralString = """
INSERT INTO revisions (series_id, time, stored, answered, found_by)
SELECT %(series_id)s, time, stored::jsonb, answered::jsonb, %(found_by)s
FROM unnest(%(times)s::timestamptz[], %(stored)s::text[], %(answered)s::text[])
    AS each (time, stored, answered)
"""

# Absences that a candle now fills are none any more; the rest of their slots stays as it was.
_FILL_ABSENCES: LiteralString = """
WITH touched AS (
    DELETE FROM absences
    WHERE series_id = %(series_id)s AND tstzmultirange(slots) && %(windows)s::tstzmultirange
    RETURNING *
)
INSERT INTO absences
    (series_id, slots, first_observed_at, next_due_at, attempts, last_live_at)
SELECT series_id, unnest(tstzmultirange(slots) - %(windows)s::tstzmultirange),
       first_observed_at, next_due_at, attempts, last_live_at
FROM touched
"""
# Forget old revisions.
_FORGET: LiteralString = """
DELETE FROM revisions WHERE found_at < now() - %(days)s * interval '1 day'
"""


class Finder(StrEnum):
    """A component that finds stored candles to be wrong."""

    REPAIR = "repair"
    VERIFY = "verify"
    RECHECK = "recheck"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Correction:
    """Windows of a series (ascending, disjoint), with the exchange's candles in them.

    A window in which a candle changes counts as changed as a whole: the narrower the windows, the
    more answers stay valid. Slots that lose a candle are confirmed as absent but for `doubts`.
    """

    series_id: int
    windows: Sequence[Window]
    candles: Candles
    found_by: Finder
    doubts: Sequence[Absence] = ()


async def apply_correction(connection: Connection, correction: Correction) -> Comparison:
    """Make the covered part of the windows hold the candles and nothing else.

    Returns:
        What was stored before, compared with the candles; nothing is written where both agree.
    """
    series_id = correction.series_id
    covered = await _lock_covered(connection, series_id, correction.windows)
    stored = await _stored(connection, series_id, covered)
    answered = Candles.concatenate([correction.candles.inside(window) for window in covered])
    comparison = compare(stored, answered)
    times = comparison.changeable
    if len(times):
        await _delete(connection, series_id, times)
        rows = complete(answered, stored)
        await copy_in(connection, series_id, rows[np.isin(rows.time, times)])
        await _revise(connection, correction, comparison.unequal, stored, answered)
        changed = [window for window in covered if _holds(window, times)]
        await record_changes(connection, series_id, changed)
        if len(comparison.missing):
            await _fill_absences(connection, series_id, changed)
        emptied = [doubt for doubt in correction.doubts if _holds(doubt.window, comparison.extra)]
        await add_absences(connection, emptied)
    return comparison


async def forget_revisions(connection: Connection, days: float) -> None:
    """Delete the revisions that were found so many days ago."""
    await connection.execute(_FORGET, {"days": days})


async def _lock_covered(
    connection: Connection, series_id: int, windows: Sequence[Window]
) -> list[Window]:
    parameters = {"series_id": series_id, "windows": ranges_of(windows)}
    cursor = await connection.execute(_LOCK_COVERED, parameters, binary=True)
    row = await cursor.fetchone()
    if row is None:
        raise not_in_the_catalog(series_id)
    covered = windows_of(row[0])
    return [part for window in windows for part in intersect(covered, window)]


async def _stored(connection: Connection, series_id: int, windows: Sequence[Window]) -> Candles:
    if not windows:
        return Candles.empty()
    block = await read_block(connection, series_id, hull(list(windows)), COLUMNS)
    return Candles.concatenate([block.candles.inside(window) for window in windows])


async def _delete(connection: Connection, series_id: int, times: Int64s) -> None:
    opens = [from_ms(int(time)) for time in times]
    bounds = {"first": opens[0], "last": opens[-1]}
    await connection.execute(_DELETE, {"series_id": series_id, "times": opens, **bounds})


async def _revise(
    connection: Connection,
    correction: Correction,
    times: Int64s,
    stored: Candles,
    answered: Candles,
) -> None:
    parameters = {
        "series_id": correction.series_id,
        "times": [from_ms(int(time)) for time in times],
        "stored": _described(stored, times),
        "answered": _described(answered, times),
        "found_by": correction.found_by.value,
    }
    await connection.execute(_REVISE, parameters)


def _described(candles: Candles, times: Int64s) -> list[str | None]:
    """Return the candle of each time as JSON, None where there is none."""
    rows = candles[np.isin(candles.time, times)]
    described = {
        int(rows.time[position]): orjson.dumps(_values(rows, position)).decode()
        for position in range(len(rows))
    }
    return [described.get(int(time)) for time in times]


def _values(rows: Candles, position: int) -> dict[str, Any]:
    values = {name: float(getattr(rows, name)[position]) for name in COLUMNS[1:]}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def _holds(window: Window, times: Int64s) -> bool:
    first, stop = np.searchsorted(times, [to_ms(window.start), to_ms(window.end)])
    return bool(first < stop)


async def _fill_absences(connection: Connection, series_id: int, windows: Sequence[Window]) -> None:
    parameters = {"series_id": series_id, "windows": ranges_of(windows)}
    await connection.execute(_FILL_ABSENCES, parameters)
