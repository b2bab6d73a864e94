"""Read the store: what is covered, of which version, and the rows.

A snapshot tells coverage and versions in one statement, a block rows, coverage and version in one:
each is of one moment of one server, a replica's or the primary's. A caller that reads the rows of a
snapshot compares: while their version is no later than the snapshot's epoch, they did not change.
Nothing here writes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString

import numpy as np

from mdp_core.domain.candles import COLUMNS, OPTIONAL_COLUMNS, Candles
from mdp_core.domain.versions import Change, Versions
from mdp_core.domain.windows import Window
from mdp_core.storage.candles.candle_writer import SeriesWindow, as_columns, windows_of
from mdp_core.storage.candles.read_queries import (
    COVERAGE,
    READ,
    READ_PRICES,
    ROWS_FROM_END,
    ROWS_FROM_START,
)
from mdp_core.storage.database.array_loaders import register_array_loaders
from mdp_core.storage.database.batching import BatchingQueue
from mdp_core.storage.database.database import Connection
from mdp_core.storage.database.replica import ReadServers, Row

# The epoch of a series that a replica has not heard of yet.
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Doubts:
    """Unconfirmed slots, and the time at which the next of them are asked for again."""

    windows: Sequence[Window] = ()
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class CoverageSnapshot:
    """The knowledge of a window at one moment.

    `missing` is what was not covered, ascending, `doubts` what is unconfirmed. Where rows were
    counted, `count` is their number, at most as many as were asked for, and `last` the open time of
    the last of them.
    """

    versions: Versions
    missing: list[Window]
    doubts: Doubts = Doubts()
    count: int = 0
    last: datetime | None = None

    def is_whole_from_start(self, rows: int) -> bool:
        """Return whether nothing is missing up to the last of so many rows, or at all."""
        if self.count < rows or self.last is None or not self.missing:
            return self.is_whole
        return self.missing[0].start > self.last

    def is_whole_from_end(self, rows: int) -> bool:
        """Return whether nothing is missing since the last of so many rows, or at all."""
        if self.count < rows or self.last is None or not self.missing:
            return self.is_whole
        return self.missing[-1].end <= self.last

    @property
    def is_whole(self) -> bool:
        """True if nothing of the window is missing."""
        return self.versions.epoch != _UNKNOWN and not self.missing


@dataclass(frozen=True, slots=True)
class Block:
    """Candles of a window, its version, and whether they are all there are."""

    version: int
    candles: Candles
    is_covered: bool


class CandleReader:
    """Reads coverage, epochs and candles; every method is one round trip."""

    def __init__(self, servers: ReadServers) -> None:
        self._servers = servers
        self._snapshots = BatchingQueue(self._read_snapshots)
        # The newest epochs that were seen, but for those of series that never changed: a replica
        # that has not heard of a change must not take back what was answered before.
        self._epochs: dict[int, int] = {}
        self._store: int | None = None

    async def snapshot(self, series_id: int, window: Window) -> CoverageSnapshot:
        """Read what of `window` is covered now.

        Calls made while a statement is under way share the next one: what they learn is as new as
        if each had been made alone.
        """
        return await self._snapshots.submit((series_id, window))

    async def first_rows(self, series_id: int, window: Window, rows: int) -> CoverageSnapshot:
        """Read what is covered now, and count the first `rows` candles of `window`."""
        return await self._read_rows(
            ROWS_FROM_START,
            (series_id, window, rows),
            lambda snapshot: snapshot.is_whole_from_start(rows),
        )

    async def last_rows(self, series_id: int, window: Window, rows: int) -> CoverageSnapshot:
        """Read what is covered now, and count the last `rows` candles of `window`."""
        return await self._read_rows(
            ROWS_FROM_END,
            (series_id, window, rows),
            lambda snapshot: snapshot.is_whole_from_end(rows),
        )

    async def read(
        self, series_id: int, window: Window, columns: Collection[str], *, epoch: int
    ) -> Block:
        """Read stored candles of `window`, ascending, none of them changed after `epoch`.

        Where they did change, the block has a later version.

        Of the columns that not every exchange gives only those in `columns` are sure to be read;
        else they are NaN. All is in memory at once: read long windows in blocks.
        """
        rows = await self._servers.fetch(
            read_query(columns),
            bounds(series_id, window),
            is_enough=lambda rows: bool(rows) and _is_of(epoch, rows[0]),
        )
        return block_of(rows)

    async def _read_rows(
        self,
        query: LiteralString,
        asked: tuple[int, Window, int],
        is_whole: Callable[[CoverageSnapshot], bool],
    ) -> CoverageSnapshot:
        series_id, window, rows = asked

        def parse(found: Sequence[Row]) -> CoverageSnapshot:
            if not found:
                return CoverageSnapshot(Versions(_UNKNOWN, _UNKNOWN), [window])
            *coverage, count, last = found[0]
            return replace(_snapshot(coverage), count=count, last=last)

        def is_enough(found: Sequence[Row]) -> bool:
            snapshot = parse(found)
            return is_whole(snapshot) and self._is_new(series_id, snapshot)

        params = {**bounds(series_id, window), "rows": rows}
        snapshot = parse(await self._servers.fetch(query, params, is_enough=is_enough))
        self._note(series_id, snapshot.versions)
        return snapshot

    async def _read_snapshots(self, asked: Sequence[SeriesWindow]) -> list[CoverageSnapshot]:
        ids = [series_id for series_id, _ in asked]

        def is_enough(found: Sequence[Row]) -> bool:
            snapshots = zip(ids, map(_snapshot, found), strict=True)
            return all(
                snapshot.is_whole and self._is_new(id_, snapshot) for id_, snapshot in snapshots
            )

        found = await self._servers.fetch(COVERAGE, as_columns(asked), is_enough=is_enough)
        snapshots = [_snapshot(row) for row in found]
        for id_, snapshot in zip(ids, snapshots, strict=True):
            self._note(id_, snapshot.versions)
        return snapshots

    def _note(self, series_id: int, seen: Versions) -> None:
        if seen.store != self._store:  # a restored store counts anew
            self._store = seen.store
            self._epochs.clear()
        if seen.epoch > self._epochs.get(series_id, 0):
            self._epochs[series_id] = seen.epoch

    def _is_new(self, series_id: int, snapshot: CoverageSnapshot) -> bool:
        versions = snapshot.versions
        is_this_store = self._store in (None, versions.store)
        return is_this_store and versions.epoch >= self._epochs.get(series_id, 0)


def _snapshot(row: Sequence[Any]) -> CoverageSnapshot:
    *versions, missing, slots, due = row
    doubts = Doubts(windows_of(slots), due) if slots else Doubts()
    return CoverageSnapshot(_versions(versions), windows_of(missing), doubts)


def _versions(columns: Sequence[Any]) -> Versions:
    store, epoch, slots, epochs = columns
    touched = zip(slots or (), epochs or (), strict=True)
    changes = [Change(Window(block.lower, block.upper), since) for block, since in touched]
    return Versions(store, epoch, changes)


def _is_of(epoch: int, row: Row) -> bool:
    """Return whether a block is all there is, and as it was at an epoch."""
    own_epoch, version, is_covered, *_ = row
    return is_covered and version <= epoch <= own_epoch


def read_query(columns: Collection[str]) -> LiteralString:
    """Return the statement that reads at least these columns."""
    return READ_PRICES if set(OPTIONAL_COLUMNS).isdisjoint(columns) else READ


def block_of(rows: Sequence[Row]) -> Block:
    """Return the block that a statement of `read_query` found."""
    if not rows:
        return Block(_UNKNOWN, Candles.empty(), is_covered=False)
    _, version, is_covered, *read = rows[0]
    if read[0] is None:
        return Block(version, Candles.empty(), is_covered)
    read += [np.full(len(read[0]), np.nan) for _ in COLUMNS[len(read) :]]
    return Block(version, Candles(*read), is_covered)


async def read_block(
    connection: Connection, series_id: int, window: Window, columns: Collection[str]
) -> Block:
    """Do what `CandleReader.read` does on a connection that the caller holds."""
    cursor = connection.cursor(binary=True)
    register_array_loaders(cursor)
    await cursor.execute(read_query(columns), bounds(series_id, window))
    return block_of(await cursor.fetchall())


def bounds(series_id: int, window: Window) -> dict[str, object]:
    """Return a series and a window as the parameters of a statement."""
    return {"series_id": series_id, "start": window.start, "end": window.end}
