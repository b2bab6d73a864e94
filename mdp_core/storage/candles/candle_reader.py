"""The read side of the store: what is covered, its epoch, and its rows.

A look tells coverage and epoch in one statement, a read tells rows, coverage and epoch in one: each
is one snapshot of one server, a replica's or the primary's. Whoever reads the rows of a look
compares the epochs; while they are equal, what the look said holds for the rows. Nothing here
writes.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import LiteralString

import numpy as np
from psycopg.types.multirange import Multirange

from mdp_core.domain.candles import OPTIONAL_COLUMNS, Candles
from mdp_core.domain.windows import Window
from mdp_core.storage.candles.binary_copy import register_array_loaders
from mdp_core.storage.database.batching import BatchingQueue
from mdp_core.storage.database.database import Connection
from mdp_core.storage.database.replica import ReadServers

# What of these windows is not covered, how often was their series repaired, and what is in doubt?
_LOOK: LiteralString = """
SELECT coalesce(series.epoch, -1),
       tstzmultirange(tstzrange(asked.first, asked.stop)) - coalesce(series.coverage, '{}'), (
    SELECT range_agg(slots) FROM absences
    WHERE series_id = asked.id AND slots && tstzrange(asked.first, asked.stop)
), (
    SELECT min(next_due_at) FROM absences
    WHERE series_id = asked.id AND slots && tstzrange(asked.first, asked.stop)
)
FROM unnest(%(ids)b::int[], %(starts)b::timestamptz[], %(ends)b::timestamptz[])
    WITH ORDINALITY AS asked (id, first, stop, position)
LEFT JOIN series USING (id)
ORDER BY asked.position
"""

# The same of one window, and when does its candle at this position, from the first, open?
_LOOK_FROM_START: LiteralString = """
SELECT epoch, tstzmultirange(tstzrange(%(start)s, %(end)s)) - coverage, (
    SELECT range_agg(slots) FROM absences
    WHERE series_id = %(series_id)s AND slots && tstzrange(%(start)s, %(end)s)
), (
    SELECT min(next_due_at) FROM absences
    WHERE series_id = %(series_id)s AND slots && tstzrange(%(start)s, %(end)s)
), (
    SELECT time FROM candles
    WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s
    ORDER BY time OFFSET %(position)s LIMIT 1
)
FROM series WHERE id = %(series_id)s
"""

# The same, counted from the last.
_LOOK_FROM_END: LiteralString = """
SELECT epoch, tstzmultirange(tstzrange(%(start)s, %(end)s)) - coverage, (
    SELECT range_agg(slots) FROM absences
    WHERE series_id = %(series_id)s AND slots && tstzrange(%(start)s, %(end)s)
), (
    SELECT min(next_due_at) FROM absences
    WHERE series_id = %(series_id)s AND slots && tstzrange(%(start)s, %(end)s)
), (
    SELECT time FROM candles
    WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s
    ORDER BY time DESC OFFSET %(position)s LIMIT 1
)
FROM series WHERE id = %(series_id)s
"""

# Which candles open in this window, ascending, as one row of columns? Of which epoch are they, and
# is the whole window covered here?
_READ: LiteralString = """
SELECT epoch, coverage @> tstzrange(%(start)s, %(end)s), candles.*
FROM series, LATERAL (
    SELECT array_agg(time), array_agg(open), array_agg(high), array_agg(low), array_agg(close),
           array_agg(volume), array_agg(quote_volume), array_agg(trades)
    FROM (
        SELECT time, open, high, low, close, volume,
               coalesce(quote_volume, 'NaN') AS quote_volume,
               coalesce(trades::float8, 'NaN') AS trades
        FROM candles
        WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s
        ORDER BY time
    ) AS ordered
) AS candles
WHERE id = %(series_id)s
"""

# The same without the columns that few ask for: reading is most of what a hit costs.
_READ_PRICES: LiteralString = """
SELECT epoch, coverage @> tstzrange(%(start)s, %(end)s), candles.*
FROM series, LATERAL (
    SELECT array_agg(time), array_agg(open), array_agg(high), array_agg(low), array_agg(close),
           array_agg(volume)
    FROM (
        SELECT time, open, high, low, close, volume FROM candles
        WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s
        ORDER BY time
    ) AS ordered
) AS candles
WHERE id = %(series_id)s
"""

# The epoch of a series that a replica has not heard of yet.
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Doubts:
    """Covered slots without a candle that will be asked for again, and when the next ones are."""

    windows: Sequence[Window] = ()
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class CoverageSnapshot:
    """What was known of a window at one moment.

    `missing` is what was not covered, ascending; `doubts` what was covered without a candle and
    will be asked for again; `found` the open time of the candle that was looked for, None where
    there were fewer.
    """

    epoch: int
    missing: list[Window]
    doubts: Doubts = Doubts()
    found: datetime | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the window is missing."""
        return self.epoch != _UNKNOWN and not self.missing

    @property
    def is_whole_up_to_found(self) -> bool:
        """Whether nothing is missing from the window's start to the candle, it included."""
        if self.found is None or not self.missing:
            return self.is_whole
        return self.missing[0].start > self.found

    @property
    def is_whole_since_found(self) -> bool:
        """Whether nothing is missing from the candle to the window's end."""
        if self.found is None or not self.missing:
            return self.is_whole
        return self.missing[-1].end <= self.found


@dataclass(frozen=True, slots=True)
class Block:
    """Candles of a window, the epoch that they belong to, and whether they are all there are."""

    epoch: int
    candles: Candles
    is_covered: bool


class CandleReader:
    """Reads coverage, epochs and candles; every method is one round trip."""

    def __init__(self, servers: ReadServers) -> None:
        self._servers = servers
        self._looks = BatchingQueue(self._look_for_all)
        # The newest epochs that were seen, but for those of series that were never repaired: a
        # replica that has not heard of a repair must not take back what was answered before.
        self._epochs: dict[int, int] = {}

    async def look(self, series_id: int, window: Window) -> CoverageSnapshot:
        """Tell what is covered now.

        Those who ask while a look is under way share the next one: what they learn is as new as if
        each had asked alone.
        """
        return await self._looks.ask((series_id, window))

    async def locate_from_start(
        self, series_id: int, window: Window, rows: int
    ) -> CoverageSnapshot:
        """Tell what is covered now, and find the last of the first `rows` candles of `window`."""
        look = await self._servers.ask(
            partial(_look, _LOOK_FROM_START, series_id, window, rows),
            is_enough=lambda look: look.is_whole_up_to_found and self._is_new(series_id, look),
        )
        self._heed(series_id, look.epoch)
        return look

    async def locate_from_end(self, series_id: int, window: Window, rows: int) -> CoverageSnapshot:
        """Tell what is covered now, and find the first of the last `rows` candles of `window`."""
        look = await self._servers.ask(
            partial(_look, _LOOK_FROM_END, series_id, window, rows),
            is_enough=lambda look: look.is_whole_since_found and self._is_new(series_id, look),
        )
        self._heed(series_id, look.epoch)
        return look

    async def read(
        self, series_id: int, window: Window, columns: Collection[str], *, epoch: int
    ) -> Block:
        """Give the stored candles that open in `window`, ascending, best of this epoch.

        Of the columns that not every exchange gives only those in `columns` are sure to be read;
        else they are NaN. All is in memory at once: read long windows in blocks.
        """
        return await self._servers.ask(
            partial(read_block, series_id=series_id, window=window, columns=columns),
            is_enough=lambda block: block.is_covered and block.epoch == epoch,
        )

    def _heed(self, series_id: int, epoch: int) -> None:
        if epoch > self._epochs.get(series_id, 0):
            self._epochs[series_id] = epoch

    def _is_new(self, series_id: int, look: CoverageSnapshot) -> bool:
        return look.epoch >= self._epochs.get(series_id, 0)

    async def _look_for_all(self, asked: Sequence[tuple[int, Window]]) -> list[CoverageSnapshot]:
        ids = [series_id for series_id, _ in asked]
        what = {
            "ids": ids,
            "starts": [window.start for _, window in asked],
            "ends": [window.end for _, window in asked],
        }

        async def look(connection: Connection) -> list[CoverageSnapshot]:
            cursor = await connection.execute(_LOOK, what, binary=True)
            rows = await cursor.fetchall()
            return [CoverageSnapshot(row[0], _windows(row[1]), _doubts(*row[2:])) for row in rows]

        looks = await self._servers.ask(
            look,
            is_enough=lambda looks: all(
                each.is_whole and self._is_new(id_, each)
                for id_, each in zip(ids, looks, strict=True)
            ),
        )
        for id_, each in zip(ids, looks, strict=True):
            self._heed(id_, each.epoch)
        return looks


async def _look(
    query: LiteralString, series_id: int, window: Window, rows: int, connection: Connection
) -> CoverageSnapshot:
    what = {**_bounds(series_id, window), "position": rows - 1}
    row = await (await connection.execute(query, what, binary=True)).fetchone()
    return (
        CoverageSnapshot(row[0], _windows(row[1]), _doubts(*row[2:4]), row[4])
        if row
        else CoverageSnapshot(_UNKNOWN, [window])
    )


async def read_block(
    connection: Connection, series_id: int, window: Window, columns: Collection[str]
) -> Block:
    """Do what `CandleReader.read` does on a connection that the caller holds."""
    wants_all = not OPTIONAL_COLUMNS.isdisjoint(columns)
    cursor = connection.cursor(binary=True)
    register_array_loaders(cursor)
    await cursor.execute(_READ if wants_all else _READ_PRICES, _bounds(series_id, window))
    row = await cursor.fetchone()
    if row is None:
        return Block(_UNKNOWN, Candles.empty(), is_covered=False)
    epoch, is_covered, *read = row
    if read[0] is None:
        return Block(epoch, Candles.empty(), is_covered)
    if not wants_all:
        unread = np.full(len(read[0]), np.nan)
        read += [unread, unread]
    return Block(epoch, Candles(*read), is_covered)


def _bounds(series_id: int, window: Window) -> dict[str, object]:
    return {"series_id": series_id, "start": window.start, "end": window.end}


def _doubts(slots: Multirange[datetime] | None, due: datetime | None) -> Doubts:
    return Doubts(_windows(slots), due) if slots else Doubts()


def _windows(ranges: Multirange[datetime]) -> list[Window]:
    return [Window(part.lower, part.upper) for part in ranges if part.lower and part.upper]
