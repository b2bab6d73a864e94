"""Versions: each change of stored facts raises its series' epoch, and is noted."""

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString

from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from mdp_core.domain.windows import Window
from mdp_core.storage.database.database import Connection

# Raise the epoch of a series, and note the slots that changed; changes that they touch merge with
# them under the new epoch. Needs the row lock of the series.
_RECORD: LiteralString = """
WITH fresh AS (
    SELECT unnest(%(windows)s::tstzmultirange) AS slots
), raised AS (
    UPDATE series SET epoch = epoch + 1 WHERE id = %(series_id)s RETURNING epoch
), touched AS (
    DELETE FROM changes WHERE series_id = %(series_id)s AND EXISTS (
        SELECT FROM fresh WHERE fresh.slots && changes.slots OR fresh.slots -|- changes.slots)
    RETURNING slots
), merged AS (
    SELECT unnest(range_agg(slots)) AS slots
    FROM (SELECT slots FROM fresh UNION ALL SELECT slots FROM touched) AS parts
)
INSERT INTO changes (series_id, slots, epoch)
SELECT %(series_id)s, slots, epoch FROM merged, raised
"""


async def record_changes(connection: Connection, series_id: int, windows: Sequence[Window]) -> None:
    """Raise the epoch of a series and note the slots whose stored facts change.

    Part of the transaction that changes them, which holds the row lock of the series. From then on
    each version of a window that one of `windows` touches is the new epoch.

    Args:
        connection: Inside that transaction.
        series_id: The series.
        windows: Disjoint, at least one.
    """
    await connection.execute(_RECORD, {"series_id": series_id, "windows": ranges_of(windows)})


def ranges_of(windows: Sequence[Window]) -> Multirange[datetime]:
    """Return windows as the database takes them."""
    return Multirange([Range(window.start, window.end) for window in windows])
