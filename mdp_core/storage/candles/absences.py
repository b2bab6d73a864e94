"""Covered absent slots that will be asked for again: stored, claimed, settled.

Times here are those of the service's clock, but for claims, which die with a process in real time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString, cast

from psycopg.types.range import Range

from mdp_core.domain.windows import Window, intersect
from mdp_core.storage.database.database import Connection, Database

# These slots are covered now, and in doubt. What is in doubt already stays as it is.
_ADD: LiteralString = """
INSERT INTO absences (
    series_id, slots, first_observed_at, next_due_at, attempts, last_live_at)
SELECT * FROM unnest(
    %(ids)s::int[], %(slots)s::tstzrange[], %(first)s::timestamptz[], %(due)s::timestamptz[],
    %(attempts)s::int[], %(live)s::timestamptz[])
ON CONFLICT DO NOTHING
"""

# Which slots of these series are unconfirmed?
_LIST: LiteralString = """
SELECT series_id, slots, first_observed_at, next_due_at, attempts, last_live_at
FROM absences WHERE series_id = %(series_id)s AND slots && %(window)s ORDER BY slots
"""

# Take those that are due in some series of a market, or in one, so that no other process does.
_CLAIM: LiteralString = """
UPDATE absences SET claimed_until = now() + %(seconds)s * interval '1 second'
WHERE (series_id, slots) IN (
    SELECT series_id, slots FROM absences
    WHERE series_id = %(series_id)s AND next_due_at <= %(now)s
      AND coalesce(claimed_until <= now(), true)
    ORDER BY slots LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING series_id, slots, first_observed_at, next_due_at, attempts, last_live_at
"""

# Give these back, to be asked for at this time.
_RELEASE: LiteralString = """
UPDATE absences SET claimed_until = NULL, next_due_at = %(due)s
WHERE series_id = %(series_id)s AND slots = ANY (%(slots)s::tstzrange[])
"""

# In which series of a market is something due?
_DUE_SERIES: LiteralString = """
SELECT symbols.native, series.interval, min(next_due_at) AS due
FROM absences JOIN series ON series.id = series_id JOIN symbols ON symbols.id = symbol_id
WHERE exchange = %(exchange)s AND market_type = %(market_type)s AND next_due_at <= %(now)s
  AND coalesce(claimed_until <= now(), true)
GROUP BY symbols.native, series.interval ORDER BY due LIMIT %(most)s
"""

# These are in doubt no more.
_REMOVE: LiteralString = """
DELETE FROM absences
WHERE series_id = %(series_id)s AND slots = ANY (%(slots)s::tstzrange[]) RETURNING slots
"""


@dataclass(frozen=True, slots=True)
class Absence:
    """Neighbouring unconfirmed slots of a series, and when they are asked for again.

    `attempts` counts rechecks, `last_live_at` is the time of the last one that counts as evidence.
    """

    series_id: int
    window: Window
    first_observed_at: datetime
    next_due_at: datetime
    attempts: int = 0
    last_live_at: datetime | None = None


class AbsenceStore:
    """Reads and claims absences; the writer of candles settles a recheck's outcome."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def inside(self, series_id: int, window: Window) -> list[Absence]:
        """Return the absences of a series that touch a window, ascending."""
        params = {"series_id": series_id, "window": _range(window)}
        async with self._database.connection() as connection:
            cursor = await connection.execute(_LIST, params)
            return [_absence(*row) for row in await cursor.fetchall()]

    async def due_series(
        self, exchange: str, market_type: str, now: datetime, most: int
    ) -> list[tuple[str, str]]:
        """Return native symbol and interval of the series in which something is due."""
        params = {"exchange": exchange, "market_type": market_type, "now": now, "most": most}
        async with self._database.connection() as connection:
            cursor = await connection.execute(_DUE_SERIES, params)
            return [(row[0], row[1]) for row in await cursor.fetchall()]

    async def claim(self, series_id: int, now: datetime, *, seconds: float) -> list[Absence]:
        """Claim what is due of a series for some real seconds; return it, ascending."""
        params = {"series_id": series_id, "now": now, "seconds": seconds, "most": 1000}
        async with self._database.transaction() as connection:
            cursor = await connection.execute(_CLAIM, params)
            claimed = [_absence(*row) for row in await cursor.fetchall()]
        return sorted(claimed, key=lambda absence: absence.window)

    async def release(self, claimed: Sequence[Absence], due: datetime) -> None:
        """Give back what could not be asked for, to be tried again at `due`."""
        for series_id in {absence.series_id for absence in claimed}:
            slots = [
                _range(absence.window) for absence in claimed if absence.series_id == series_id
            ]
            params = {"series_id": series_id, "slots": slots, "due": due}
            async with self._database.transaction() as connection:
                await connection.execute(_RELEASE, params)


async def add_absences(connection: Connection, absences: Sequence[Absence]) -> None:
    """Keep absences, in the transaction that covers their slots."""
    if not absences:
        return
    columns = {
        "ids": [absence.series_id for absence in absences],
        "slots": [_range(absence.window) for absence in absences],
        "first": [absence.first_observed_at for absence in absences],
        "due": [absence.next_due_at for absence in absences],
        "attempts": [absence.attempts for absence in absences],
        "live": [absence.last_live_at for absence in absences],
    }
    await connection.execute(_ADD, columns)


async def remove_absences(
    connection: Connection, series_id: int, windows: Sequence[Window]
) -> list[Window]:
    """Remove absences by their windows; return those that were still there."""
    params = {"series_id": series_id, "slots": [_range(window) for window in windows]}
    cursor = await connection.execute(_REMOVE, params)
    return sorted(_window(row[0]) for row in await cursor.fetchall())


def clipped(absences: Sequence[Absence], windows: Sequence[Window]) -> list[Absence]:
    """Return the parts of absences that lie inside windows."""
    return [
        replace(absence, window=part)
        for absence in absences
        for window in windows
        for part in intersect([absence.window], window)
    ]


def _absence(series_id: int, slots: Range[datetime], *rest: Any) -> Absence:  # noqa: ANN401 - a row
    return Absence(series_id, _window(slots), *rest)


def _window(slots: Range[datetime]) -> Window:
    return Window(cast("datetime", slots.lower), cast("datetime", slots.upper))


def _range(window: Window) -> Range[datetime]:
    return Range(window.start, window.end)
