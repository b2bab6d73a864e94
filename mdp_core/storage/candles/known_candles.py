"""Candles that are surely stored, one each of a few series, for canaries."""

from datetime import datetime
from typing import LiteralString, TypeAlias

from mdp_core.domain.intervals import Interval
from mdp_core.domain.series import Series, Symbol
from mdp_core.domain.windows import Window
from mdp_core.storage.database.database import Database

# Which are the newest candles of this series and of a few others that are active?
# Weeks and months are left out for others: their grid may be the series' own.
_NEWEST: LiteralString = """
WITH recent AS (
    SELECT series.id, interval, symbol_id, upper(coverage) AS stop
    FROM series JOIN symbols ON symbols.id = symbol_id
    WHERE exchange = %(exchange)s AND market_type = %(market_type)s AND active
      AND NOT isempty(coverage)
      AND (series.id = %(series_id)s OR interval NOT IN ('3d', '1w', '1M'))
    ORDER BY series.id = %(series_id)s DESC, upper(coverage) DESC LIMIT 4
)
SELECT exchange, market_type, name, native, base, quote, interval, time
FROM recent JOIN symbols ON symbols.id = symbol_id, LATERAL (
    SELECT time FROM candles
    WHERE series_id = recent.id AND time < stop AND time >= stop - interval '60 days'
    ORDER BY time DESC LIMIT 1
) AS newest
ORDER BY recent.id = %(series_id)s DESC, stop DESC
"""

# Is there a candle in this window?
_HOLDS: LiteralString = """
SELECT EXISTS (
    SELECT FROM candles
    WHERE series_id = %(series_id)s AND time >= %(start)s AND time < %(end)s)
"""

_Known: TypeAlias = tuple[Symbol, Interval, datetime]


class KnownCandles:
    """Reads which candles an exchange is known to have."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, series: Series) -> list[_Known]:
        """Return the newest stored candles of a few active series, this one first."""
        params = {
            "series_id": series.id,
            "exchange": series.exchange,
            "market_type": series.symbol.market_type,
        }
        async with self._database.connection() as connection:
            cursor = await connection.execute(_NEWEST, params)
            rows = await cursor.fetchall()
        return [
            (Symbol(*names, active=True), Interval(interval), opens)
            for *names, interval, opens in rows
        ]

    async def holds(self, series_id: int, window: Window) -> bool:
        """Return whether a candle that opens in `window` is stored."""
        params = {"series_id": series_id, "start": window.start, "end": window.end}
        async with self._database.connection() as connection:
            row = await (await connection.execute(_HOLDS, params)).fetchone()
        return bool(row and row[0])
