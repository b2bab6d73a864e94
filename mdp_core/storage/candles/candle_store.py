"""Candles and coverage: the one door to what is stored of them.

Coverage is a fact: it comes from the window that was asked of the exchange, and it is written in
the transaction that writes the rows. Whatever is stored lies inside coverage.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString, TypeAlias

from mdp_core.domain.candles import COLUMNS, Candles, RejectedRow
from mdp_core.domain.clock import Clock
from mdp_core.domain.comparison import Comparison
from mdp_core.domain.windows import Window
from mdp_core.storage.candles.absences import Absence
from mdp_core.storage.candles.candle_reader import bounds, read_block
from mdp_core.storage.candles.candle_writer import (
    Save,
    Saver,
    SeriesWindow,
    as_columns,
    not_in_the_catalog,
    windows_of,
)
from mdp_core.storage.candles.changes import ranges_of
from mdp_core.storage.candles.corrections import Correction, apply_correction, forget_revisions
from mdp_core.storage.database.batching import BatchingQueue
from mdp_core.storage.database.database import Connection, Database

# Rows that were last seen so many days ago.
_FORGET_REJECTED: LiteralString = """
DELETE FROM rejected_rows WHERE last_seen < now() - %(days)s * interval '1 day'
"""

# What of these windows is not covered?
_UNCOVERED: LiteralString = """
SELECT %(window)s::tstzmultirange - coverage FROM series WHERE id = %(series_id)s
"""

# What of these windows is not covered, and which of their refused slots were asked for so often
# that they are left alone for now? The first time they are asked for again on the next request,
# then after a minute, twice as long each time, up to an hour.
_FETCHABLE: LiteralString = """
SELECT tstzmultirange(tstzrange(opens, ends)) - coverage, ARRAY(
    SELECT slot FROM rejected_rows
    WHERE series_id = series.id AND slot >= opens AND slot < ends AND times_seen > 1
      AND last_seen > now() - least(60 * 2 ^ least(times_seen - 2, 10), 3600) * interval '1 second'
    ORDER BY slot)
FROM unnest(%(ids)s::int[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    WITH ORDINALITY AS asked(id, opens, ends, position)
LEFT JOIN series USING (id) ORDER BY position
"""

# What is covered of this window?
_COVERED: LiteralString = """
SELECT coverage * %(window)s::tstzmultirange FROM series WHERE id = %(series_id)s
"""

# Where does the last covered window of these series end?
_COVERED_UNTIL: LiteralString = """
SELECT id, upper(coverage) FROM series WHERE id = ANY (%(ids)s) AND NOT isempty(coverage)
"""

# Which slots of this window had rows that can't be right?
_REJECTED: LiteralString = """
SELECT slot FROM rejected_rows
WHERE series_id = %(series_id)s AND slot >= %(start)s AND slot < %(end)s
ORDER BY slot
"""

_Fetchable: TypeAlias = tuple[list[Window], list[datetime]]


class CandleStore:
    """Reads and saves candles together with the windows they are known for."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        """Open the store; `clock` tells by how much this service's differs from real time."""
        self._database = database
        self._saver = Saver(database, clock or Clock())
        self._gap_reads = BatchingQueue(self._fetchable_together)

    async def aclose(self) -> None:
        """Wait for what is being saved."""
        await self._saver.aclose()

    async def uncovered(self, series_id: int, window: Window) -> list[Window]:
        """Give the parts of `window` that are not covered, ascending."""
        async with self._database.connection() as connection:
            return await _windows(connection, _UNCOVERED, series_id, window=ranges_of([window]))

    async def fetchable_gaps(self, series_id: int, window: Window) -> _Fetchable:
        """Return the uncovered parts of `window`, and the refused slots that rest now.

        Both ascending; a slot that rests is not to be asked for yet.
        """
        return await self._gap_reads.submit((series_id, window))

    async def covered(self, series_id: int, window: Window) -> list[Window]:
        """Give the parts of `window` that are covered, ascending."""
        async with self._database.connection() as connection:
            return await _windows(connection, _COVERED, series_id, window=ranges_of([window]))

    async def covered_until(self, series_ids: Sequence[int]) -> dict[int, datetime]:
        """Give where the last covered window of each series ends, if anything is covered."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_COVERED_UNTIL, {"ids": list(series_ids)})
            return {row[0]: row[1] for row in await cursor.fetchall()}

    async def save(
        self,
        series_id: int,
        windows: Sequence[Window],
        candles: Candles,
        rejected: Sequence[RejectedRow] = (),
        absences: Sequence[Absence] = (),
    ) -> int:
        """Store what the exchange has in `windows`; covered slots stay as they are.

        Right without any lock outside it: of two that save the same windows at once the second
        writes nothing. The order (lock, copy, update) is what keeps writers from deadlocks.

        Args:
            series_id: Whose candles.
            windows: Ascending, disjoint: where `candles` is all that the exchange has.
            candles: Ascending and unique; rows outside `windows` are not stored.
            rejected: Rows to remember; their slots must lie outside `windows`.
            absences: Slots of `windows` without a candle that will be asked for again.

        Returns:
            How many candles were new.
        """
        return await self._saver.save(Save(series_id, windows, candles, rejected, absences))

    async def read(self, series_id: int, window: Window) -> Candles:
        """Give the stored candles that open in `window`, ascending.

        The whole answer is in memory at once: read long windows in blocks.
        """
        async with self._database.connection() as connection:
            return (await read_block(connection, series_id, window, COLUMNS)).candles

    async def correct(self, correction: Correction) -> Comparison:
        """Make the covered part of the correction's windows hold its candles alone.

        Where that changes anything the version of these windows rises in the same transaction: what
        is cached of them elsewhere is then known to be old. Old values go to the revisions.

        Returns:
            What was stored before, compared with the candles.
        """
        async with self._database.transaction() as connection:
            return await apply_correction(connection, correction)

    async def forget_revisions(self, days: float) -> None:
        """Delete the revisions that were found so many days ago."""
        async with self._database.connection() as connection:
            await forget_revisions(connection, days)

    async def forget_rejected_rows(self, days: float) -> None:
        """Delete the rejected rows that were last seen so many days ago."""
        async with self._database.connection() as connection:
            await connection.execute(_FORGET_REJECTED, {"days": days})

    async def rejected_slots(self, series_id: int, window: Window) -> list[datetime]:
        """Give the slots of `window` whose row was refused at some time, ascending."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_REJECTED, bounds(series_id, window))
            return [row[0] for row in await cursor.fetchall()]

    async def _fetchable_together(
        self, asked: Sequence[SeriesWindow]
    ) -> list[_Fetchable | Exception]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(_FETCHABLE, as_columns(asked), binary=True)
            rows = await cursor.fetchall()
        return [
            not_in_the_catalog(series_id) if gaps is None else (windows_of(gaps), resting)
            for (series_id, _), (gaps, resting) in zip(asked, rows, strict=True)
        ]


async def _windows(
    connection: Connection, query: LiteralString, series_id: int, **ranges: object
) -> list[Window]:
    cursor = await connection.execute(query, {"series_id": series_id, **ranges}, binary=True)
    row = await cursor.fetchone()
    if row is None:
        raise not_in_the_catalog(series_id)
    return windows_of(row[0])
