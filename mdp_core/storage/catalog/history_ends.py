"""History ends of inactive symbols, as their exchanges told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from mdp_core.domain.clock import from_ms, to_ms
from mdp_core.domain.intervals import Grid
from mdp_core.domain.series import Series, Symbol
from mdp_core.domain.windows import Window, intersect, subtract
from mdp_core.storage.candles.absences import Absence, add_absences
from mdp_core.storage.candles.candle_writer import windows_of
from mdp_core.storage.database.database import Connection, Database

# Where does the history of this symbol end?
_GET: LiteralString = """
SELECT history_ends, history_ends_source, history_ends_checked_at FROM symbols
WHERE exchange = %(exchange)s AND market_type = %(market_type)s AND native = %(native)s
  AND history_ends IS NOT NULL AND NOT active
"""

# It ends there.
_SAVE: LiteralString = """
UPDATE symbols SET history_ends = %(time)s, history_ends_source = %(source)s,
    history_ends_checked_at = %(checked_at)s
WHERE exchange = %(exchange)s AND market_type = %(market_type)s AND native = %(native)s
  AND NOT active
"""

# Which symbols of a market are active though a history end of theirs is kept: listed again?
_RELISTED: LiteralString = """
SELECT native, history_ends, history_ends_source, history_ends_checked_at FROM symbols
WHERE exchange = %(exchange)s AND market_type = %(market_type)s
  AND history_ends IS NOT NULL AND active
"""

# Its history ends nowhere.
_CLEAR: LiteralString = """
UPDATE symbols SET history_ends = NULL, history_ends_source = NULL, history_ends_checked_at = NULL
WHERE exchange = %(exchange)s AND market_type = %(market_type)s AND native = %(native)s
  AND active
"""

# What is covered and not in doubt? No other process changes the series until the transaction ends.
_LOCK_CONFIRMED: LiteralString = """
SELECT coverage - coalesce(
    (SELECT range_agg(slots) FROM absences WHERE series_id = %(series_id)s), '{}')
FROM series WHERE id = %(series_id)s FOR UPDATE
"""

# Which candles of this window are stored?
_TIMES: LiteralString = """
SELECT time FROM candles
WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s ORDER BY time
"""


@dataclass(frozen=True, slots=True)
class HistoryEnd:
    """A symbol's last close time, how that is known, and when it was asked for."""

    time: datetime
    source: str
    checked_at: datetime

    def slots_after(self, grid: Grid) -> Window | None:
        """Return the slots after the end that were closed when it was asked for, if any."""
        ended, closed = grid.ceil(self.time), grid.floor(self.checked_at)
        return Window(ended, closed) if ended < closed else None


class HistoryEndStore:
    """Reads and saves history ends."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, symbol: Symbol) -> HistoryEnd | None:
        """Return where an inactive symbol's history ends, if that is known."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_GET, _name(symbol))).fetchone()
        return HistoryEnd(*row) if row else None

    async def save(self, symbol: Symbol, end: HistoryEnd) -> bool:
        """Keep where it ends, unless it is active again; return whether that is kept."""
        params = {"time": end.time, "source": end.source, "checked_at": end.checked_at}
        async with self._database.transaction() as connection:
            cursor = await connection.execute(_SAVE, {**_name(symbol), **params})
            return cursor.rowcount > 0

    async def relisted(self, exchange: str, market_type: str) -> dict[str, HistoryEnd]:
        """Return the history ends of symbols that are active again, by native name."""
        params = {"exchange": exchange, "market_type": market_type}
        async with self._database.connection() as connection:
            rows = await (await connection.execute(_RELISTED, params)).fetchall()
        return {native: HistoryEnd(*end) for native, *end in rows}

    async def reopen(
        self, symbol: Symbol, ended: Sequence[tuple[Series, Sequence[Window]]], now: datetime
    ) -> None:
        """Doubt absences after the end of a symbol that is active again; forget its end.

        Args:
            symbol: Listed again.
            ended: Its series, and the windows after the end that one recheck may ask for each.
            now: The time by the service's clock: the first recheck is due then.
        """
        async with self._database.transaction() as connection:
            for series, windows in sorted(ended, key=lambda pair: pair[0].id):
                doubts = await _confirmed_absences(connection, series, windows)
                await add_absences(
                    connection, [Absence(series.id, doubt, now, now) for doubt in doubts]
                )
            await connection.execute(_CLEAR, _name(symbol))


async def _confirmed_absences(
    connection: Connection, series: Series, windows: Sequence[Window]
) -> list[Window]:
    """Return the parts of windows that are covered, empty, and not in doubt."""
    cursor = await connection.execute(_LOCK_CONFIRMED, {"series_id": series.id}, binary=True)
    row = await cursor.fetchone()
    confirmed = windows_of(row[0]) if row else []
    parts = [part for window in windows for part in intersect(confirmed, window)]
    if not parts:
        return []
    bounds = {"start": parts[0].start, "end": parts[-1].end}
    cursor = await connection.execute(_TIMES, {"series_id": series.id, **bounds})
    times = [from_ms(to_ms(row[0])) for row in await cursor.fetchall()]
    return subtract(parts, [Window(time, series.grid.next(time)) for time in times])


def _name(symbol: Symbol) -> dict[str, object]:
    return {
        "exchange": symbol.exchange,
        "market_type": symbol.market_type,
        "native": symbol.native,
    }
