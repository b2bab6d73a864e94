"""Where the histories of inactive symbols end, as their exchanges told."""

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from mdp_core.domain.series import Symbol
from mdp_core.storage.database.database import Database

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


@dataclass(frozen=True, slots=True)
class HistoryEnd:
    """The close time of a symbol's last candle, how that is known, and when it was asked for."""

    time: datetime
    source: str
    checked_at: datetime


class HistoryEndStore:
    """Reads and saves history ends."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, symbol: Symbol) -> HistoryEnd | None:
        """Return where an inactive symbol's history ends, if that is known."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_GET, _name(symbol))).fetchone()
        return HistoryEnd(*row) if row else None

    async def save(self, symbol: Symbol, end: HistoryEnd) -> None:
        """Keep where it ends, unless it is active again."""
        what = {"time": end.time, "source": end.source, "checked_at": end.checked_at}
        async with self._database.transaction() as connection:
            await connection.execute(_SAVE, {**_name(symbol), **what})


def _name(symbol: Symbol) -> dict[str, object]:
    return {
        "exchange": symbol.exchange,
        "market_type": symbol.market_type,
        "native": symbol.native,
    }
