"""Apply a recheck in one transaction: store candles, uncover slots, end doubt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

import numpy as np

from mdp_core.domain.candles import Candles, RejectedRow
from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.windows import Window, intersect
from mdp_core.storage.candles.absences import Absence, add_absences, clipped, remove_absences
from mdp_core.storage.candles.candle_writer import (
    as_columns,
    copy_in,
    remember_rejected,
)
from mdp_core.storage.candles.changes import record_changes
from mdp_core.storage.database.database import Connection, Database

# Let no other process change this series until the transaction ends.
_LOCK: LiteralString = "SELECT FROM series WHERE id = %(series_id)s FOR UPDATE"

# Which of these candles are stored?
_STORED: LiteralString = """
SELECT time FROM candles WHERE series_id = %(series_id)s AND time = ANY (%(times)s::timestamptz[])
"""

# The store no longer equals the exchange in these windows.
_UNCOVER: LiteralString = """
UPDATE series SET coverage = coverage - (
    SELECT range_agg(tstzrange(opens, ends))
    FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS lost(opens, ends))
WHERE id = %(series_id)s
"""


@dataclass(frozen=True, slots=True)
class Healing:
    """The outcome of a recheck of some absences of a series, in these `windows`.

    Attributes:
        series_id: Whose absences.
        windows: As they were claimed; slots that are in none of the others are confirmed.
        found: Candles that came; those outside of the windows are not stored.
        changed: The slots of the windows that have one now, ascending windows.
        rejected: Rows to remember.
        later: What stays in doubt.
        lost: What is covered no longer: the exchange has forgotten it, or sent wrong rows.
    """

    series_id: int
    windows: Sequence[Window]
    found: Candles
    changed: Sequence[Window]
    rejected: Sequence[RejectedRow]
    later: Sequence[Absence]
    lost: Sequence[Window]


class Healer:
    """Writes what comes of rechecks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heal(self, healing: Healing) -> int:
        """Write a healing; return how many candles were stored.

        What was settled meanwhile by others stays as it is. Where candles are stored, or coverage
        is taken back, the version of those slots rises.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK, {"series_id": healing.series_id})
            mine = await remove_absences(connection, healing.series_id, healing.windows)
            found = await _new_candles(connection, healing, mine)
            await copy_in(connection, healing.series_id, found)
            await add_absences(connection, clipped(healing.later, mine))
            lost = _inside(healing.lost, mine)
            await _uncover(connection, healing.series_id, lost)
            rejected = [(healing.series_id, row) for row in healing.rejected]
            await remember_rejected(connection, rejected)
            changed = sorted([*_inside(healing.changed, mine), *lost])
            if changed:
                await record_changes(connection, healing.series_id, changed)
        return len(found)


async def _new_candles(
    connection: Connection, healing: Healing, windows: Sequence[Window]
) -> Candles:
    """Return the candles found inside `windows` that are not stored yet."""
    found = Candles.concatenate([healing.found.inside(window) for window in windows])
    opens = [from_ms(time) for time in found.time.tolist()]
    cursor = await connection.execute(_STORED, {"series_id": healing.series_id, "times": opens})
    stored = [to_ms(row[0]) for row in await cursor.fetchall()]
    return found[~np.isin(found.time, stored)]


def _inside(parts: Sequence[Window], windows: Sequence[Window]) -> list[Window]:
    return [part for window in windows for part in intersect(parts, window)]


async def _uncover(connection: Connection, series_id: int, windows: Sequence[Window]) -> None:
    if windows:
        columns = as_columns([(series_id, window) for window in windows])
        await connection.execute(_UNCOVER, {**columns, "series_id": series_id})
