"""History starts, stored with provenance, never after a stored candle."""

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from mdp_core.domain.windows import Window
from mdp_core.storage.candles.changes import record_changes
from mdp_core.storage.database.database import Database

# Where does the history of this series begin, as far as that is known? No other process changes
# the series until the transaction ends.
_LOCK: LiteralString = """
SELECT history_begins FROM series WHERE id = %(series_id)s FOR UPDATE
"""

# It begins there, or with the first candle that is stored before.
_SET: LiteralString = """
UPDATE series SET
    history_begins = least(%(time)s, (
        SELECT time FROM candles
        WHERE series_id = %(series_id)s AND time < %(time)s ORDER BY time LIMIT 1)),
    history_source = %(source)s, history_witnesses = %(witnesses)s,
    history_checked_at = %(checked_at)s, history_recheck_at = %(recheck_at)s
WHERE id = %(series_id)s RETURNING history_begins
"""

# It is asked for again then.
_PUT_OFF: LiteralString = """
UPDATE series SET history_recheck_at = %(recheck_at)s WHERE id = %(series_id)s
"""

# In which series of a market is the history start to be asked for again?
_DUE: LiteralString = """
SELECT symbols.native, series.interval FROM series JOIN symbols ON symbols.id = symbol_id
WHERE exchange = %(exchange)s AND market_type = %(market_type)s AND active
  AND history_begins IS NOT NULL AND coalesce(history_recheck_at <= %(now)s, true)
ORDER BY history_recheck_at NULLS FIRST LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class KnownStart:
    """A series' first open time, how and how often that was told, and when.

    `recheck_at` is when it is asked for again.
    """

    time: datetime
    source: str
    witnesses: int
    checked_at: datetime
    recheck_at: datetime


class HistoryStartStore:
    """Saves where histories begin."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, series_id: int, start: KnownStart) -> datetime:
        """Keep where the history of a series begins; return what is believed now.

        That is never after a stored candle. Where it differs from the one before, the version
        of the slots between both rises.
        """
        parameters = {
            "series_id": series_id,
            "time": start.time,
            "source": start.source,
            "witnesses": start.witnesses,
            "checked_at": start.checked_at,
            "recheck_at": start.recheck_at,
        }
        async with self._database.transaction() as connection:
            cursor = await connection.execute(_LOCK, {"series_id": series_id})
            row = await cursor.fetchone()
            before: datetime | None = row[0] if row else None
            row = await (await connection.execute(_SET, parameters)).fetchone()
            assert row, "series are never deleted"  # noqa: S101 - for the type checker
            begins: datetime = row[0]
            if before is not None and begins != before:
                changed = Window(min(before, begins), max(before, begins))
                await record_changes(connection, series_id, [changed])
        return begins

    async def put_off(self, series_id: int, recheck_at: datetime) -> None:
        """Have the history start of a series asked for again at another time."""
        parameters = {"series_id": series_id, "recheck_at": recheck_at}
        async with self._database.transaction() as connection:
            await connection.execute(_PUT_OFF, parameters)

    async def due(
        self, exchange: str, market_type: str, now: datetime, most: int
    ) -> list[tuple[str, str]]:
        """Return native symbol and interval of series whose start is to be asked again."""
        parameters = {"exchange": exchange, "market_type": market_type, "now": now, "most": most}
        async with self._database.connection() as connection:
            cursor = await connection.execute(_DUE, parameters)
            return [(row[0], row[1]) for row in await cursor.fetchall()]
