"""The database's clock, and each exchange's offset to it at its last reading."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from mdp_core.storage.database.database import Database

# The time now, and the last known offset of an exchange.
_READ: LiteralString = """
SELECT clock_timestamp(), (SELECT offset_ms FROM clock_offsets WHERE exchange = %(exchange)s)
"""

_SAVE: LiteralString = """
INSERT INTO clock_offsets (exchange, offset_ms) VALUES (%(exchange)s, %(offset_ms)s)
ON CONFLICT (exchange) DO UPDATE SET offset_ms = excluded.offset_ms, read_at = now()
"""


@dataclass(frozen=True, slots=True)
class DatabaseTime:
    """A reading of the database's clock; `offset`: the exchange's last lead over it."""

    now: datetime
    offset: timedelta | None


class ClockOffsets:
    """Keeps what is known of exchanges' clocks for processes that can't ask."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, exchange: str) -> DatabaseTime:
        """Read the database's clock (real time, UTC), and what it knows of an exchange's."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_READ, {"exchange": exchange})
            row = await cursor.fetchone()
        assert row, "a SELECT without FROM gives a row"  # noqa: S101 - for the type checker
        offset = None if row[1] is None else timedelta(milliseconds=row[1])
        return DatabaseTime(row[0], offset)

    async def save(self, exchange: str, offset: timedelta) -> None:
        """Keep by how much an exchange's clock is ahead of the database's."""
        params = {"exchange": exchange, "offset_ms": offset // timedelta(milliseconds=1)}
        async with self._database.connection() as connection:
            await connection.execute(_SAVE, params)
